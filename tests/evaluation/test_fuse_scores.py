"""Scores files and their fusion, against sums written out."""

import pickle

import numpy as np
import pytest

from ops.common.errors import InputError
from ops.evaluation.scores import Scores, fuse, submission_lines
from tests.helpers import run_cli
from tools import fuse_scores

NAMES = ["a b/video 1", 'it\'s "2"', "$(touch x)/3"]
LABELS = np.array([0, 1, 2])
RGB = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0], [1.0, 0.0, 0.5]], dtype=np.float32)  # right, wrong, wrong
FLOW = np.array([[0.0, 1.0, 0.5], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)  # wrong, right, right


def save(path, names=NAMES, labels=LABELS, scores=RGB):
    Scores(list(names), np.asarray(labels), np.asarray(scores, dtype=np.float32)).save(path)
    return str(path)


def test_fuse_is_the_mean_of_weighted_scores():
    fused = fuse([RGB, FLOW], [1.0, 1.5])
    for video in range(3):
        for cls in range(3):
            assert fused[video, cls] == pytest.approx((1.0 * RGB[video, cls] + 1.5 * FLOW[video, cls]) / 2)
    assert fused.dtype == np.float32


def test_fuse_softmax_comes_first():
    exp = np.exp(RGB.astype(np.float64))
    probabilities = exp / exp.sum(axis=1, keepdims=True)
    exp = np.exp(FLOW.astype(np.float64))
    expected = (probabilities + 2 * exp / exp.sum(axis=1, keepdims=True)) / 2
    np.testing.assert_allclose(fuse([RGB, FLOW], [1.0, 2.0], softmax=True), expected, rtol=1e-6)


def test_scores_round_trip(tmp_path):
    path = tmp_path / "odd 'name'.npz"
    save(path)
    loaded = Scores.load(path)
    assert loaded.names == NAMES
    assert loaded.labels.dtype == np.int64
    assert loaded.scores.dtype == np.float32
    np.testing.assert_array_equal(loaded.labels, LABELS)
    np.testing.assert_array_equal(loaded.scores, RGB)
    assert [path.name for path in tmp_path.iterdir()] == ["odd 'name'.npz"]


def test_accuracies_of_scores():
    # Classes 0 (2 of 3 right) and 2 (0 of 1 right) occur, class 1 does not: mean over two classes.
    scores = Scores(list("abcd"), np.array([0, 0, 0, 2]), np.eye(3, dtype=np.float32)[[0, 0, 1, 1]])
    assert scores.topk_percent(1) == pytest.approx(50.0)
    assert scores.topk_percent(5) == 100.0  # top-5 of 3 classes is everything
    assert scores.class_percent() == pytest.approx(100 * (2 / 3 + 0) / 2)
    np.testing.assert_array_equal(scores.confusion(), [[2, 1, 0], [0, 0, 0], [0, 1, 0]])


def test_submission_formats():
    scores = Scores(["x/11", "12"], np.array([0, 1]), np.array([[0, 5, 1, 4, 2, 3], [9, 8, 7, 6, 5, 4]], np.float32))
    assert submission_lines(scores, list("ABCDEF"), top5=False) == ["x/11;B", "12;A"]
    assert submission_lines(scores, None, top5=False) == ["x/11;1", "12;0"]
    assert submission_lines(scores, list("ABCDEF"), top5=True) == ["x/11;1;3;5;4;2", "12;0;1;2;3;4"]


def test_command_reorders_and_prints_each_and_the_fused(tmp_path, capsys):
    order = [2, 0, 1]
    one = save(tmp_path / "rgb.npz")
    two = save(tmp_path / "flow.npz", [NAMES[i] for i in order], LABELS[order], FLOW[order])
    out = tmp_path / "fused.npz"
    fuse_scores.main([one, two, "--coeff", "1", "1.5", "--output", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 videos, 3 classes"
    assert [line.split()[-2:] for line in lines[2:4]] == [["33.33%", "100.00%"], ["66.67%", "100.00%"]]
    fused = Scores.load(out)
    assert fused.names == NAMES
    np.testing.assert_allclose(fused.scores, (RGB + 1.5 * FLOW) / 2, rtol=1e-6)
    right = (fused.scores.argmax(axis=1) == LABELS).mean()
    assert lines[4].split() == ["fused", f"{100 * right:.2f}%", "100.00%"]


@pytest.mark.parametrize(
    ("other", "arguments", "message"),
    [
        ({"names": ["a b/video 1", 'it\'s "2"', "else"]}, [], "not scores of the same videos"),
        ({"labels": [0, 2, 2]}, [], "disagree about labels"),
        ({"scores": np.zeros((3, 4))}, [], "4 classes"),
        ({}, ["--coeff", "1"], "one a file"),
        ({}, ["--coeff", "1", "nan"], "finite"),
        ({"scores": np.full((3, 3), np.nan)}, [], "not finite"),
        ({"labels": [0, 1, 3]}, [], "labels outside"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, other, arguments, message):
    one, two = save(tmp_path / "a.npz"), save(tmp_path / "b.npz", **other)
    with pytest.raises(InputError, match=message):
        fuse_scores.main([one, two, *arguments])


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_hostile_and_broken_files_are_refused_and_run_nothing(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "object.npz", names=np.array([_Bomb(str(trap))], dtype=object), labels=LABELS, scores=RGB)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(_Bomb(str(trap))))
    (tmp_path / "text.npz").write_text("names labels scores")
    (tmp_path / "empty.npz").write_bytes(b"")
    whole = (tmp_path / "whole.npz", save(tmp_path / "whole.npz"))[0].read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "single.npy", RGB)
    np.savez(tmp_path / "other.npz", scores=RGB)
    for name in ("object.npz", "pickle.npz", "text.npz", "empty.npz", "cut.npz", "single.npy", "other.npz", "none.npz"):
        with pytest.raises(InputError, match=name):
            Scores.load(tmp_path / name)
    with pytest.raises(InputError) as caught:
        Scores.load(tmp_path / "text.npz")
    assert "pickle" not in str(caught.value)  # numpy's advice for a file that it does not know
    assert not trap.exists()
    result = run_cli(["tools/fuse_scores.py", tmp_path / "pickle.npz"])
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
