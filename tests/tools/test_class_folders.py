"""Lists from class folders: which videos there are, and which are for validation."""

from __future__ import annotations

import pytest

from ops.common.errors import InputError
from ops.dataset import TSNDataSet
from ops.dataset_config import DataOptions, resolve_dataset
from tests.helpers import make_frame_folder, make_frames, make_video
from tests.tools.helpers import gen_kinetics, lines, make_folders


def test_class_folders_with_split_folders_fit_the_table_of_data_sets(tmp_path):
    root = tmp_path / "moving_digits"
    make_folders(root / "images", {"train/b c/1": 4, "train/a/2": 3, "val/b c/$(x)": 5, "val/d/-4": 3})
    (root / "images/train/.a.partial").mkdir()
    assert gen_kinetics(root, "--from_folders") == 0
    assert lines(root / "labels/train_videofolder.txt") == ["train/a/2 3 0", "train/b c/1 4 1"]
    assert lines(root / "labels/val_videofolder.txt") == ["val/b c/$(x) 5 1", "val/d/-4 3 2"]
    paths = resolve_dataset("moving_digits", "RGB", DataOptions(root_dataset=tmp_path, num_class=3))
    assert paths.class_names == ["a", "b c", "d"]
    assert paths.train_list == root / "labels/train_videofolder.txt"


def test_class_folders_without_split_set_a_share_aside(tmp_path):
    videos = [*(f"a/{i}" for i in range(10)), *(f"b/{i}" for i in range(5)), "c/0"]
    make_folders(tmp_path / "images", dict.fromkeys(videos, 3))
    gen_kinetics(tmp_path, "--from_folders", "--val_share", "0.2")
    train, val = (lines(tmp_path / f"labels/{subset}_videofolder.txt") for subset in ("train", "val"))
    assert [line[0] for line in val] == ["a", "a", "b"] and len(train) == 13
    assert not set(train) & set(val)
    gen_kinetics(tmp_path, "--from_folders", "--val_share", "0.2")
    assert lines(tmp_path / "labels/val_videofolder.txt") == val
    with pytest.raises(InputError, match="below 1"):
        gen_kinetics(tmp_path, "--from_folders", "--val_share", "1")


def test_class_folders_of_video_files_list_them_as_their_frame_folders(tmp_path, capsys):
    make_video(tmp_path / "images/train/a/x.mp4", make_frames(7))
    make_video(tmp_path / "images/val/a/y.v2.avi", make_frames(4))
    (tmp_path / "images/val/a/broken.mp4").write_text("no video")
    assert gen_kinetics(tmp_path, "--from_folders", "--videos") == 1
    assert lines(tmp_path / "labels/train_videofolder.txt") == ["train/a/x 7 0"]
    assert lines(tmp_path / "labels/val_videofolder.txt") == ["val/a/y.v2 4 0"]
    assert "unreadable, left out: 1\n  val/a/broken: " in capsys.readouterr().err
    make_video(tmp_path / "images/train/a/person 1/z.mp4", make_frames(3))
    gen_kinetics(tmp_path, "--from_folders", "--videos")
    assert "not read, folders in class folders: train/a/person 1\n" in capsys.readouterr().err
    make_video(tmp_path / "images/train/a/x.avi", make_frames(3))
    with pytest.raises(InputError, match="would be one video in a list"):
        gen_kinetics(tmp_path, "--from_folders", "--videos")


def test_every_video_file_is_listed_and_the_others_are_named(tmp_path, capsys):
    for name in ("x.mts", "y.m2ts", "no_ending", "unknown.ending"):
        made = make_video(tmp_path / "images/train/a/made.ts", make_frames(12, (64, 48)), codec="mpeg2video")
        made.rename(made.with_name(name))
    (tmp_path / "images/train/a/notes.txt").write_text("no video")
    assert gen_kinetics(tmp_path, "--from_folders", "--videos") == 0
    listed = [f"train/a/{name} 12 0" for name in ("no_ending", "unknown.ending", "x", "y")]
    assert lines(tmp_path / "labels/train_videofolder.txt") == listed
    assert "no video, left out: 1 file\n  train/a/notes.txt\n" in capsys.readouterr().err
    dataset = TSNDataSet(tmp_path / "images", tmp_path / "labels/train_videofolder.txt", io="video")
    assert {dataset.open(record).count_frames() for record in dataset.video_list} == {12}


def test_gaps_and_names_that_a_list_cannot_hold_are_reported(tmp_path, capsys):
    videos = ["train/a/x", "train/a/y", "train/a/z", "train/a/new\nline", "train/a/ blank ", "val/a/v"]
    make_folders(tmp_path / "images", dict.fromkeys(videos, 5))
    (tmp_path / "images/train/a/x/img_00003.jpg").unlink()
    (tmp_path / "images/train/a/y/img_00005.jpg").unlink()
    assert gen_kinetics(tmp_path, "--from_folders") == 1
    assert lines(tmp_path / "labels/train_videofolder.txt") == ["train/a/y 4 0", "train/a/z 5 0"]
    err = capsys.readouterr().err
    assert "unreadable, left out: 3\n" in err
    assert "train/a/x: img_00003.jpg is missing, though 5 is there" in err
    assert "new\\nline: a list cannot hold this name" in err


def test_groups_stay_together(tmp_path, capsys):
    videos = [f"{name}/film{film}_{clip}" for name in "ab" for film in range(10) for clip in range(4)]
    make_folders(tmp_path / "images", dict.fromkeys([*videos, "c/film1_9", "c/film20_1", "d/alone"], 3))
    pattern = "(film[0-9]+)_|alone"
    assert gen_kinetics(tmp_path, "--from_folders", "--group", pattern) == 0
    train, val = (lines(tmp_path / f"labels/{subset}_videofolder.txt") for subset in ("train", "val"))
    films = [{line.split("/")[1].split("_")[0] for line in listed} for listed in (train, val)]
    assert not films[0] & films[1] and len(train) + len(val) == 83
    # Two films of ten are the share of a and b: in both classes the same, since a film's clips may be of several.
    assert [sum(line.startswith(name) for line in val) for name in "ab"] == [8, 8] and len(films[1]) == 2
    assert "12 groups by '(film[0-9]+)_|alone': 10 in train, 2 in val" in capsys.readouterr().out
    gen_kinetics(tmp_path, "--from_folders", "--group", pattern, "--seed", "1")
    assert lines(tmp_path / "labels/val_videofolder.txt") != val


def test_every_class_that_can_be_is_validated_on_by_whole_groups(tmp_path, capsys):
    videos = [*(f"a/x_{i}" for i in range(4)), *(f"a/y_{i}" for i in range(6)), *(f"b/z_{i}" for i in range(5))]
    make_folders(tmp_path / "images", dict.fromkeys(videos, 3))
    assert gen_kinetics(tmp_path, "--from_folders", "--group", "^[^_]+", "--val_share", "0.1") == 0
    val = lines(tmp_path / "labels/val_videofolder.txt")
    assert val == [f"a/x_{i} 3 0" for i in range(4)]  # the smaller of two; b has a single film, for training
    assert "classes without val videos: b" in capsys.readouterr().err


def test_groups_of_split_folders_are_counted(tmp_path, capsys):
    make_folders(tmp_path / "images", dict.fromkeys(["train/a/f1_1", "train/a/f2_1", "val/a/f2_2", "val/a/f3_1"], 3))
    assert gen_kinetics(tmp_path, "--from_folders", "--group", "^[^_]+") == 0
    out = capsys.readouterr().out
    assert "3 groups by '^[^_]+': 2 in train, 2 in val, 1 of them in both train and val" in out


def test_group_mistakes(tmp_path):
    make_folders(tmp_path / "images", dict.fromkeys(["a/film1_1", "a/x_2"], 3))
    with pytest.raises(InputError, match="--group 'film' matches nothing in a/x_2"):
        gen_kinetics(tmp_path, "--from_folders", "--group", "film")
    with pytest.raises(InputError, match="--group is for --from_folders"):
        gen_kinetics(tmp_path, "--val_csv", "val.csv", "--group", "a")
    with pytest.raises(SystemExit):
        gen_kinetics(tmp_path, "--from_folders", "--group", "(")


def test_class_folders_that_look_like_split_folders(tmp_path, capsys):
    root = tmp_path / "images"
    make_folders(root, dict.fromkeys(["training/x", "walking/y", "__MACOSX/walking/z"], 3))
    assert gen_kinetics(tmp_path, "--from_folders", "--val_share", "0") == 0
    assert lines(tmp_path / "labels/category.txt") == ["training", "walking"]
    assert lines(tmp_path / "labels/train_videofolder.txt") == ["training/x 3 0", "walking/y 3 1"]
    assert "no val list: there are no videos for it" in capsys.readouterr().err
    make_folders(root, dict.fromkeys(["Train_256/a/x", "VAL_256/b/y"], 3))
    assert gen_kinetics(tmp_path, "--from_folders") == 0
    assert lines(tmp_path / "labels/val_videofolder.txt") == ["VAL_256/b/y 3 1"]
    err = capsys.readouterr().err
    assert "not read, beside Train_256, VAL_256, training: walking" in err
    assert "classes without train videos: b" in err and "classes without val videos: a" in err


@pytest.mark.parametrize("depth", ["", "a", "train/a"])
def test_folders_of_the_wrong_depth_are_one_line(tmp_path, depth):
    make_frame_folder(tmp_path / "images" / depth, 3)
    with pytest.raises(InputError, match="no <class>/<video>"):
        gen_kinetics(tmp_path, "--from_folders")
