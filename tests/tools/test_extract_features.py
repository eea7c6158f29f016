"""tools/extract_features.py: through the classifier, its features are the scores of test_models.py and predict.py."""

import json

import numpy as np
import pytest
import torch

import test_models
from ops.checkpoint.file import load_checkpoint
from ops.common.errors import InputError
from ops.evaluation.net import load_model
from ops.evaluation.scores import Scores
from tests.helpers import make_frame_folder, make_frames, make_list, make_video
from tests.test_test_models import write_checkpoint
from tools import extract_features, predict

VIEWS = ["--test_crops", "3", "--full_res", "--twice_sample"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_checkpoint(tmp_path_factory.mktemp("nets") / "tsm.pth.tar", dataset="any", is_shift=True))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("videos") / "a.mp4", make_frames(30, (56, 42)), fps=10)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of three folders of 6, 9 and 12 frames, with labels 2, 0, 1."""
    root = tmp_path_factory.mktemp("frames")
    for number in range(3):
        make_frame_folder(root / f"v{number}", 6 + 3 * number, (56, 42), seed=number)
    return make_list(root / "list.txt", [("v0", 6, 2), ("v1", 9, 0), ("v2", 12, 1)])


def extract(tmp_path, *arguments):
    extract_features.main([str(argument) for argument in (arguments[0], tmp_path / "f.npz", *arguments[1:])])
    with np.load(tmp_path / "f.npz") as file:
        return dict(file)


def classify(weights, features):
    """Scores of features, by the checkpoint's classifier."""
    model, _ = load_model(load_checkpoint(weights))
    with torch.no_grad():
        return model.classifier(torch.from_numpy(features))


@pytest.mark.parametrize("views", [[], VIEWS])
def test_features_of_a_list_give_the_scores_of_evaluation(tmp_path, weights, listed, views):
    where = ["--root_path", listed.parent, "-j", 0, *views]
    scores = ["--test_segments", 4, "--test_list", listed, "--scores", tmp_path / "s.npz"]
    test_models.main([str(a) for a in ["any", "--weights", weights, *scores, *where]])
    found = extract(tmp_path, weights, "--dataset", "any", "--list", listed, *where)
    assert found["names"].tolist() == ["v0", "v1", "v2"]
    assert found["labels"].tolist() == [2, 0, 1]
    assert found["times"].tolist() == [[0, 0.24], [0, 0.36], [0, 0.48]]  # 25 frames a second
    wanted = torch.from_numpy(Scores.load(tmp_path / "s.npz").scores)
    torch.testing.assert_close(classify(weights, found["features"]), wanted, rtol=1e-4, atol=1e-5)


def test_a_row_for_each_segment(tmp_path, weights, video):
    (whole,) = extract(tmp_path, weights, video, *VIEWS)["features"]
    found = extract(tmp_path, weights, video, "--per", "segment", *VIEWS)
    # Two clips of 4 segments of 30 frames: the middles of the parts, and their first frames.
    first_frames = np.array([3, 11, 18, 26, 0, 7, 15, 22])
    np.testing.assert_allclose(found["times"], np.stack([first_frames, first_frames + 1], axis=1) / 10)
    assert found["names"].tolist() == [str(video)] * 8
    assert found["labels"].tolist() == [-1] * 8
    np.testing.assert_allclose(found["features"].mean(axis=0), whole, rtol=1e-4, atol=1e-6)
    assert len(np.unique(found["features"], axis=0)) == 8


def test_windows_give_the_answers_of_predict(tmp_path, capsys, weights, video):
    window = ["--window", "1", "--stride", "1"]
    predict.main([str(video), "--weights", weights, "--json", *window])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = extract(tmp_path, weights, video, *window)
    assert found["times"].tolist() == [[0, 1], [1, 2], [2, 3]]
    for probabilities, answer in zip(classify(weights, found["features"]).softmax(dim=1), answers, strict=True):
        for best in answer["predictions"]:
            assert probabilities[best["class"]].item() == pytest.approx(best["probability"], abs=1e-5)


def test_what_cannot_be_extracted_leaves_no_file(tmp_path, weights, video, listed):
    with pytest.raises(InputError, match="give videos, or a data set"):
        extract(tmp_path, weights)
    with pytest.raises(InputError, match="--window is for videos"):
        extract(tmp_path, weights, "--dataset", "any", "--list", listed, "--window", 1)
    broken = make_list(tmp_path / "broken.txt", [("v0", 6, 0), ("absent", 6, 0)])
    with pytest.raises(InputError, match=r"broken\.txt:2: .*absent"):
        extract(tmp_path, weights, "--dataset", "any", "--list", broken, "--root_path", listed.parent, "-j", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.txt"]


def test_times_of_listed_video_files_are_their_own(tmp_path, weights, video):
    listed = make_list(tmp_path / "videos.txt", [("a", 30, 1)])
    where = ["--dataset", "any", "--list", listed, "--root_path", video.parent, "--io", "video", "-j", 0]
    assert extract(tmp_path, weights, *where)["times"].tolist() == [[0, 3]]  # 10 frames a second
    assert extract(tmp_path, weights, *where, "--fps", 5)["times"].tolist() == [[0, 6]]


def test_times_of_a_known_data_sets_frames_are_by_its_rate(tmp_path, weights, listed):
    where = ["--dataset", "jester", "--list", listed, "--root_path", listed.parent, "--num_class", 3, "-j", 0]
    found = extract(tmp_path, weights, *where, "--image_tmpl", "img_{:05d}.jpg")
    np.testing.assert_allclose(found["times"], [[0, 6 / 12], [0, 9 / 12], [0, 1]])  # Jester has 12 a second
