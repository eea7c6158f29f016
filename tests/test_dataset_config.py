"""The table of data sets against the published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.common.class_names import read_class_names
from ops.common.errors import InputError
from ops.dataset_config import DATASETS, DataOptions, resolve_dataset, return_dataset

# name, modality, classes, frames, validation list (split 2 where there are splits), template, flip
S1, S2 = "something/v1/20bn-something-something-v1", "something/v2/20bn-something-something-v2"
DIGITS = "moving_digits"
UCF, HMDB = "UCF101/file_list/ucf101", "HMDB51/splits/hmdb51"
LAYOUTS = [
    ("kinetics", "RGB", 400, "kinetics/images", "kinetics/labels/val_videofolder.txt", "img_{:05d}.jpg", True),
    ("something", "RGB", 174, S1, "something/v1/val_videofolder.txt", "{:05d}.jpg", False),
    ("something", "Flow", 174, f"{S1}-flow", "something/v1/val_videofolder_flow.txt", "{:06d}-{}_{:05d}.jpg", False),
    ("somethingv2", "RGB", 174, f"{S2}-frames", "something/v2/val_videofolder.txt", "{:06d}.jpg", False),
    ("somethingv2", "Flow", 174, f"{S2}-flow", "something/v2/val_videofolder_flow.txt", "{:06d}.jpg", False),
    ("jester", "RGB", 27, "jester/20bn-jester-v1", "jester/val_videofolder.txt", "{:05d}.jpg", False),
    ("ucf101", "RGB", 101, "UCF101/jpg", f"{UCF}_rgb_val_split_2.txt", "img_{:05d}.jpg", True),
    ("ucf101", "Flow", 101, "UCF101/jpg", f"{UCF}_flow_val_split_2.txt", "flow_{}_{:05d}.jpg", True),
    ("hmdb51", "RGB", 51, "HMDB51/images", f"{HMDB}_rgb_val_split_2.txt", "img_{:05d}.jpg", True),
    ("hmdb51", "Flow", 51, "HMDB51/images", f"{HMDB}_flow_val_split_2.txt", "flow_{}_{:05d}.jpg", True),
    (DIGITS, "RGB", 8, f"{DIGITS}/images", f"{DIGITS}/labels/val_videofolder.txt", "img_{:05d}.jpg", False),
]


def resolve(name, modality="RGB", **options):
    return resolve_dataset(name, modality, DataOptions(**options))


@pytest.mark.parametrize(("name", "modality", "classes", "frames", "val_list", "tmpl", "flip"), LAYOUTS)
def test_published_layouts(name, modality, classes, frames, val_list, tmpl, flip):
    paths = resolve(name, modality, root_dataset="/data", split=2)
    assert paths.num_classes == classes
    assert paths.root_path == Path("/data") / frames
    assert paths.val_list == Path("/data") / val_list
    assert paths.train_list == Path("/data") / val_list.replace("val_", "train_")
    assert (paths.image_tmpl, paths.flip) == (tmpl, flip)


@pytest.mark.parametrize(("name", "modality", "classes", "frames", "val_list", "tmpl", "flip"), LAYOUTS)
def test_the_published_look_up(name, modality, classes, frames, val_list, tmpl, flip, monkeypatch):
    monkeypatch.setenv("TSM_DATA_ROOT", "/data")
    val_list = f"/data/{val_list.replace('split_2', 'split_1')}"
    train_list = val_list.replace("val_", "train_")
    assert return_dataset(name, modality) == (classes, train_list, val_list, f"/data/{frames}", tmpl)


def test_the_published_look_up_names_the_data_sets():
    with pytest.raises(InputError, match=r"'mine': choose one of kinetics, something"):
        return_dataset("mine", "RGB")


def test_rgbdiff_reads_the_rgb_frames():
    for name in DATASETS:
        assert resolve(name, "RGB", root_dataset="/data") == resolve(name, "RGBDiff", root_dataset="/data")


def test_root_comes_from_option_then_environment_then_data(monkeypatch):
    monkeypatch.delenv("TSM_DATA_ROOT", raising=False)
    assert resolve_dataset("jester", "RGB").root_path == Path("data/jester/20bn-jester-v1")
    monkeypatch.setenv("TSM_DATA_ROOT", "/disk")
    assert resolve("jester").root_path == Path("/disk/jester/20bn-jester-v1")
    assert resolve("jester", root_dataset="/own").root_path == Path("/own/jester/20bn-jester-v1")


def test_options_override_the_row():
    lists = {"train_list": "a.txt", "val_list": "b.txt", "root_path": "frames"}
    paths = resolve("kinetics", num_class=7, image_tmpl="{:03d}.png", **lists)
    assert (paths.train_list, paths.val_list, paths.root_path) == (Path("a.txt"), Path("b.txt"), Path("frames"))
    assert (paths.num_classes, paths.image_tmpl) == (7, "{:03d}.png")
    assert resolve("kinetics", **dict.fromkeys(lists, "")) == resolve("kinetics")


def test_own_data_needs_no_row():
    paths = resolve("mine", val_list="b.txt", root_path="~/frames", num_class=3)
    assert (paths.num_classes, paths.image_tmpl, paths.train_list, paths.flip) == (3, "img_{:05d}.jpg", None, True)
    assert (paths.val_list, paths.root_path) == (Path("b.txt"), Path.home() / "frames")
    with pytest.raises(InputError, match=r"unknown data set 'mine': choose one of kinetics, .* --num_class"):
        resolve("mine", val_list="b.txt", root_path="frames")


def test_videos_have_their_own_root_and_the_same_lists():
    frames, videos = (resolve("kinetics", root_dataset="/data", io=io) for io in ("frames", "video"))
    assert videos.root_path == Path("/data/kinetics/videos")
    assert videos.train_list == frames.train_list
    with pytest.raises(InputError, match="extract_flow"):
        resolve("kinetics", "Flow", io="video")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"modality": "Depth"}, "unknown modality 'Depth': choose one of RGB, Flow, RGBDiff"),
        ({"io": "tape"}, "unknown --io 'tape'"),
        ({"split": 4}, "--split must be 1, 2 or 3, got 4"),
        ({"num_class": 0}, "--num_class must be 1 or more"),
        ({"image_tmpl": "frame.jpg"}, "'frame.jpg' is no frame file template"),
        ({"image_tmpl": "{}_{:05d}.jpg"}, "names x and y files: RGB takes names like img_"),
        ({"image_tmpl": "{:5q}.jpg"}, "is no frame file template"),
        ({"image_tmpl": "{0.x}.jpg"}, "is no frame file template"),
    ],
)
def test_bad_options(kwargs, match):
    with pytest.raises(InputError, match=match):
        resolve("ucf101", **kwargs)


def test_class_names_beside_the_list_then_the_rows_own(tmp_path):
    def class_names():
        options = DataOptions(root_dataset=tmp_path, num_class=2, val_list=tmp_path / "own" / "v.txt")
        return resolve_dataset("jester", "RGB", options).class_names

    assert class_names() is None
    (tmp_path / "jester").mkdir()
    (tmp_path / "jester" / "category.txt").write_text("Stop Sign\nThumb Up\n", encoding="utf-8")
    assert class_names() == ["Stop Sign", "Thumb Up"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "category.txt").write_text("a\nb\nc\n", encoding="utf-8")  # three names for two classes
    assert class_names() == ["Stop Sign", "Thumb Up"]
    (tmp_path / "own" / "category.txt").write_text("a\n\nb", encoding="utf-8")
    assert class_names() == ["a", "b"]


def test_class_ind(tmp_path):
    path = tmp_path / "classInd.txt"
    path.write_text("1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n", encoding="utf-8")
    assert read_class_names(path) == ["ApplyEyeMakeup", "ApplyLipstick"]
    path.write_text("1 ApplyEyeMakeup\n3 Archery\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"classInd.txt:2: expected `2 name`, got '3 Archery'"):
        read_class_names(path)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(InputError, match="cannot read class names from"):
        read_class_names(path)
