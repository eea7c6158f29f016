"""Tables by hand; pictures that are pictures, whatever the names hold."""

import numpy as np
import pytest
from PIL import Image

from ops.common.errors import InputError
from ops.evaluation import plots
from ops.evaluation.plots import _draw_curves, comparison_png, confusion_png, curves_png, new_figure
from ops.evaluation.tables import confused_pairs_table, per_class_table

ROWS = [
    {"epoch": 0.0, "train_loss": 2.0, "train_top1": 10.0, "test_loss": None, "test_top1": None},
    {"epoch": 1.0, "train_loss": 1.0, "train_top1": 50.0, "test_loss": 1.5, "test_top1": 40.0},
]
PHASES = ("validation", "training")
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


def test_confused_pairs_are_listed_by_their_number_then_by_their_share():
    matrix = np.array([[2, 3, 0], [1, 9, 3], [0, 0, 0]])
    lines = confused_pairs_table(matrix, ["up", "going down", "left"]).splitlines()
    assert lines[0].split() == ["class", "taken", "for", "videos", "of", "class", "reverse"]
    assert [line.rsplit(maxsplit=3) for line in lines[1:]] == [
        ["up          going down", "3", "60.00%", "1"],
        ["going down  left", "3", "23.08%", "0"],
        ["going down  up", "1", "7.69%", "3"],
    ]
    cut = confused_pairs_table(matrix, ["up", "going down", "left"], most=1).splitlines()
    assert cut == [*lines[:2], "... 2 more ..."]
    assert len(confused_pairs_table(np.diag([2, 3]), None).splitlines()) == 1  # every answer is right


@pytest.mark.parametrize("num_classes", [174, 400])
def test_every_class_is_named_in_a_large_confusion_picture(tmp_path, num_classes, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_png", lambda figure, path: figures.append(figure))
    confusion_png(np.eye(num_classes), None, tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    height = 72 * figures[0].get_figheight() / num_classes  # points a class has, with what is around the matrix
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == [str(number) for number in range(num_classes)]
        assert 5 <= ticks[0].get_fontsize() < height


def test_training_and_validation_differ_in_colour():
    axes = new_figure(11.0, 4.5).subplots(1, 2)
    _draw_curves(axes, {"TSN": ROWS, "TSM": ROWS})
    for ax in axes:
        assert [line.get_label() for line in ax.lines] == [f"{n} {w}" for n in ("TSN", "TSM") for w in PHASES]
        assert len({line.get_color() for line in ax.lines}) == 4


@pytest.mark.parametrize("num_classes", [1, 3, 30])
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
    figure = new_figure(11.0, 4.5)
    axes = figure.subplots(1, 2)
    _draw_curves(axes, {"": [{**ROWS[1], "epoch": float(epoch)} for epoch in range(5)]})
    for ax in axes:
        assert all(tick == round(tick) for tick in ax.get_xticks())


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x\.png"):
        confusion_png(np.eye(2), None, tmp_path / "file" / "x.png")
