"""The table of predictions and the picture of the worst clips, against numbers by hand and the network's input."""

import csv
import math

import numpy as np
import pytest

from ops.data.sampling import test_indices as middle_frames
from ops.dataset import TSNDataSet
from ops.evaluation import contact_sheet
from ops.evaluation.scores import Scores, prediction_lines
from ops.transforms import test_transform as crops
from tests.helpers import make_frame_folder, make_list

NAMES = ["up", "down, slowly", 'say "left"']
# Truths of rank 1, 3 and 2; the last row has equal scores.
SCORES = Scores(
    ["a", "b c", "d"],
    np.array([1, 0, 2]),
    np.log(np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25]], dtype=np.float32)) + 3,
)


def test_predictions_hold_the_five_best_and_the_rank_of_the_truth():
    header, *rows = csv.reader(prediction_lines(SCORES, NAMES))
    assert header == ["path", "truth", "rank", *(f"{what}{k}" for k in (1, 2, 3) for what in ("class", "probability"))]
    assert rows[0] == ["a", "down, slowly", "1", "down, slowly", "0.700000", "up", "0.200000", 'say "left"', "0.100000"]
    assert rows[1][:5] == ["b c", "up", "3", 'say "left"', "0.600000"]
    assert rows[2][:3] == ["d", 'say "left"', "3"]  # of equal scores, the class that is first in the list comes first
    header, row = csv.reader(prediction_lines(Scores(["a"], np.array([6]), np.eye(7, dtype=np.float32)[6:]), None))
    assert (header[-1], len(row)) == ("probability5", 13) and row[2:5] == ["1", "6", f"{math.e / (math.e + 6):.6f}"]


def test_scores_that_are_probabilities_are_not_softmaxed_again():
    weighted = Scores(["a"], np.array([0]), np.array([[0.6, 0.9]], dtype=np.float32), softmaxed=True)
    np.testing.assert_allclose(weighted.probabilities(), [[0.4, 0.6]], rtol=1e-6)


@pytest.fixture
def dataset(tmp_path):
    for number in range(3):
        make_frame_folder(tmp_path / f"video {number}", 20, (56, 42), seed=number)
    listed = make_list(tmp_path / "list.txt", [(f"video {number}", 20, 0) for number in range(3)])

    def build(num_segments=4, num_crops=1, **options):
        options = {"transform": crops(32, 36, num_crops), "random_shift": False, "test_mode": True, **options}
        return TSNDataSet(tmp_path, listed, num_segments=num_segments, **options)

    return build


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"num_crops": 3}])
def test_frames_are_those_that_the_network_sees(dataset, options):
    data = dataset(**options)
    seen = data[1][0][:4].permute(0, 2, 3, 1).numpy()  # the first crop
    np.testing.assert_array_equal(contact_sheet._frames(data, 1), seen)


def test_of_many_frames_eight_are_shown(dataset):
    data = dataset(num_segments=15)
    sampled = middle_frames(20, 15, 1)
    expected = data[0][0][[0, 2, 4, 6, 8, 10, 12, 14]].permute(0, 2, 3, 1).numpy()
    assert len(set(sampled.tolist())) == 15
    np.testing.assert_array_equal(contact_sheet._frames(data, 0), expected)


def test_the_worst_clip_comes_first(dataset, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(contact_sheet, "save_png", lambda figure, path: figures.append(figure))
    contact_sheet.worst_clips_png(dataset(), [0, 1, 2], SCORES, ["up", "$\\down$", "left"], tmp_path / "worst.png")
    titles = [axes.get_title(loc="left").split("    ") for axes in figures[0].axes]
    assert titles == [
        ["truth: up 10.0 %, rank 3", "answer: left 60.0 %", "b c"],
        ["truth: left 25.0 %, rank 3", "answer: $\\down$ 50.0 %", "d"],
        ["truth: $\\down$ 70.0 %, rank 1", "right", "a"],
    ]
    shown = figures[0].axes[0].images[0].get_array()
    assert shown.shape == (32, 4 * 33, 3) and (shown[:, 32] == 255).all()  # a white line after each frame
    np.testing.assert_array_equal(shown[:, 33:65], dataset()[1][0][1].permute(1, 2, 0).numpy())
