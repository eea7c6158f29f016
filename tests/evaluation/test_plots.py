"""Tables by hand; pictures that are pictures, whatever the names hold."""

import numpy as np
import pytest
from PIL import Image

from ops.common.errors import InputError
from ops.evaluation.plots import _draw_curves, _figure, comparison_png, confusion_png, curves_png, per_class_table

ROWS = [
    {"epoch": 0.0, "train_loss": 2.0, "train_top1": 10.0, "test_loss": None, "test_top1": None},
    {"epoch": 1.0, "train_loss": 1.0, "train_top1": 50.0, "test_loss": 1.5, "test_top1": 40.0},
]
ODD_NAMES = ["$x_{1}$", "it's <b>", "100%\\frac{"]


def test_per_class_table():
    lines = per_class_table(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 6]]), ["up", "down", "left"]).splitlines()
    assert lines[0].split() == ["class", "videos", "right", "accuracy", "most", "often", "taken", "for"]
    assert lines[1].split() == ["up", "4", "3", "75.00%", "down", "(1)"]
    assert lines[2].split() == ["left", "8", "6", "75.00%", "up", "(2)"]
    assert len(lines) == 3  # no video is 'down'
    assert per_class_table(np.diag([2]), None).splitlines()[1].split() == ["0", "2", "2", "100.00%", "-"]


def test_a_long_table_is_cut_to_the_best_and_the_worst():
    matrix = np.diag(np.arange(1, 8))  # class k: k + 1 right
    matrix[:, 0] += np.arange(7)  # and k taken for class 0
    lines = per_class_table(matrix, None, most=2).splitlines()
    assert [line.split()[0] for line in lines] == ["class", "0", "1", "...", "5", "6"]
    assert lines[3] == "... 3 classes between ..."
    assert per_class_table(matrix, None, most=4) == per_class_table(matrix, None)


@pytest.mark.parametrize("num_classes", [1, 3, 30, 400])
def test_confusion_picture_darkens_where_the_counts_are(tmp_path, num_classes):
    path = tmp_path / "new folder" / "confusion.png"
    confusion_png(np.eye(num_classes, dtype=np.int64) * 5, ODD_NAMES if num_classes == 3 else None, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] > 300
        assert np.asarray(image.convert("L")).min() < 100


def test_curves_and_comparison_pictures(tmp_path):
    curves_png(ROWS, tmp_path / "curves.png")
    matrix = np.array([[3, 1, 0], [0, 2, 0], [2, 0, 6]])
    comparison_png({"TSN": ROWS, "TSM": ROWS[1:]}, {"TSN": matrix, "TSM": matrix}, ODD_NAMES, tmp_path / "both.png")
    with Image.open(tmp_path / "curves.png") as curves, Image.open(tmp_path / "both.png") as both:
        for image in (curves, both):
            image.load()  # the whole file is there
            assert image.format == "PNG"
            assert (np.asarray(image.convert("L")) < 200).any()  # something is drawn


def test_a_run_without_validation_has_curves(tmp_path):
    curves_png(ROWS[:1], tmp_path / "curves.png")
    curves_png([], tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").stat().st_size > 0


def test_epochs_are_whole_numbers_on_the_axis():
    figure = _figure(11.0, 4.5)
    axes = figure.subplots(1, 2)
    _draw_curves(axes, {"": [{**ROWS[1], "epoch": float(epoch)} for epoch in range(5)]})
    for ax in axes:
        assert all(tick == round(tick) for tick in ax.get_xticks())


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x\.png"):
        confusion_png(np.eye(2), None, tmp_path / "file" / "x.png")
