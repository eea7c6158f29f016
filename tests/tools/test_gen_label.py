"""Lists from each data set's annotation files, in small copies of the format in which they are distributed."""

from __future__ import annotations

import json

import pytest

from ops.common.errors import InputError
from ops.dataset import TSNDataSet
from tests.helpers import make_frame_folder
from tests.tools.helpers import lines, make_folders, write
from tools import (
    gen_label_hmdb51,
    gen_label_jester,
    gen_label_sthv1,
    gen_label_sthv2,
    gen_label_ucf101,
)

# --- something-something, Jester --------------------------------------------------------------------------------------


def gen(module, root, out, annotations, *options):
    return module.main([str(root), "--out", str(out), "--annotations", str(annotations), "--jobs", "1", *options])


def test_sthv1(tmp_path):
    prefix, root = "something-something-v1", tmp_path / "frames"
    classes = ["Attaching something to something", "Closing something", "Holding something"]
    write(tmp_path / f"{prefix}-labels.csv", *reversed(classes))
    write(tmp_path / f"{prefix}-train.csv", "100;Holding something", "7;Closing something")
    write(tmp_path / f"{prefix}-validation.csv", "8;Attaching something to something")
    write(tmp_path / f"{prefix}-test.csv", "9")
    for folder, tmpl in ((root, "{:05d}.jpg"), (tmp_path / "flow", "{:06d}-{}_{:05d}.jpg")):
        make_folders(folder, {"100": 3, "7": 4, "8": 5, "9": 6}, tmpl)
    assert gen(gen_label_sthv1, root, tmp_path, tmp_path) == 0
    assert lines(tmp_path / "category.txt") == classes
    assert lines(tmp_path / "train_videofolder.txt") == ["100 3 2", "7 4 1"]
    assert lines(tmp_path / "val_videofolder.txt") == ["8 5 0"]
    assert lines(tmp_path / "test_videofolder.txt") == ["9 6 0"]
    assert gen(gen_label_sthv1, tmp_path / "flow", tmp_path, tmp_path, "--flow") == 0
    assert lines(tmp_path / "train_videofolder_flow.txt") == ["100 6 2", "7 8 1"]  # x and y files
    assert lines(tmp_path / "val_videofolder_flow.txt") == ["8 10 0"]


def test_lists_without_videos_are_not_written_and_said(sthv2, tmp_path, capsys):
    folder, _ = sthv2
    for path in (folder / "frames/7").iterdir():
        path.unlink()
    (folder / "frames/7").rmdir()
    assert gen(gen_label_sthv2, folder / "frames", folder, folder) == 0  # test videos: many do not fetch them
    assert lines(folder / "train_videofolder.txt") == ["78687 3 1", "5 3 2"]
    assert lines(folder / "val_videofolder.txt") == ["6 3 0"]
    assert not (folder / "test_videofolder.txt").exists()
    err = capsys.readouterr().err
    assert f"{folder}/test_videofolder.txt: not written, 0 of 1 video" in err
    assert f"videos without a label: 1 of 1: 7; looked in {folder}/frames\n" in err
    (folder / "frames/6").rename(folder / "frames/8")
    assert gen(gen_label_sthv2, folder / "frames", folder, folder) == 1  # a run needs these
    said = "val_videofolder.txt: not written, 0 of 1 video (the list there is of an earlier run)"
    assert said in capsys.readouterr().err
    (folder / "frames").rename(folder / "20bn")
    (folder / "frames").mkdir()
    (folder / "20bn").rename(folder / "frames/20bn")
    with pytest.raises(InputError, match=r"none of its videos is in .*frames \(78687: looked in .*frames holds 20bn\)"):
        gen(gen_label_sthv2, folder / "frames", folder, folder)


def test_jester_without_test_videos_and_in_split_folders(tmp_path, capsys):
    write(tmp_path / "labels.csv", "A", "B")  # short names do as well
    for name, content in (("train", "1;A"), ("validation", "2;B"), ("test", "3")):
        write(tmp_path / f"{name}.csv", content)
    make_folders(tmp_path / "frames", {"Train/1": 3, "Validation/2": 4}, "{:05d}.jpg")
    assert gen(gen_label_jester, tmp_path / "frames", tmp_path, tmp_path) == 0
    assert lines(tmp_path / "train_videofolder.txt") == ["Train/1 3 0"]
    assert lines(tmp_path / "val_videofolder.txt") == ["Validation/2 4 1"]
    assert "test_videofolder.txt: not written" in capsys.readouterr().err


def test_sthv1_flow_in_folders_padded_to_six_digits_is_listed_as_its_frames_are(tmp_path):
    prefix = "something-something-v1"
    for name, content in (("labels", "A"), ("train", "7;A"), ("validation", "100000;A")):
        write(tmp_path / f"{prefix}-{name}.csv", content)
    make_folders(tmp_path / "flow", {"000007": 3, "100000": 4}, "{:06d}-{}_{:05d}.jpg")
    assert gen(gen_label_sthv1, tmp_path / "flow", tmp_path, tmp_path, "--flow") == 0
    assert lines(tmp_path / "train_videofolder_flow.txt") == ["7 6 0"]
    data = TSNDataSet(tmp_path / "flow", tmp_path / "train_videofolder_flow.txt", 2, 5, "Flow", "{:06d}-{}_{:05d}.jpg")
    assert data[0][0].shape[:2] == (2 * 5, 2)


def test_sthv1_mistakes(tmp_path):
    prefix, root = "something-something-v1", tmp_path / "frames"
    make_frame_folder(root / "1", 3, tmpl="{:05d}.jpg")
    with pytest.raises(InputError, match=r"v1-labels\.csv: no such file"):
        gen(gen_label_sthv1, root, tmp_path, tmp_path)
    write(tmp_path / f"{prefix}-labels.csv", "A", "B")
    write(tmp_path / f"{prefix}-validation.csv", "1;A")
    for line, message in (("1;C", "class 'C' is not in"), ("1", "expected `id;label`")):
        write(tmp_path / f"{prefix}-train.csv", "1;A", line)
        with pytest.raises(InputError, match=rf"v1-train\.csv:2: {message}"):
            gen(gen_label_sthv1, root, tmp_path, tmp_path)
    write(tmp_path / f"{prefix}-labels.csv", "A", "A")
    with pytest.raises(InputError, match="twice"):
        gen(gen_label_sthv1, root, tmp_path, tmp_path)
    assert not list(tmp_path.glob("*.txt"))


def test_jester_labels_follow_the_published_models(tmp_path):
    write(tmp_path / "jester-v1-labels.csv", "Swiping Left", "Doing other things", "Drumming Fingers")
    write(tmp_path / "jester-v1-train.csv", "1;Swiping Left", "2;Drumming Fingers")
    write(tmp_path / "jester-v1-validation.csv", "3;Doing other things", "404;Swiping Left")
    make_folders(tmp_path / "frames", {"1": 3, "2": 4, "3": 5}, "{:05d}.jpg")
    assert gen(gen_label_jester, tmp_path / "frames", tmp_path, tmp_path) == 0
    assert lines(tmp_path / "category.txt") == ["Doing other things", "Drumming Fingers", "Swiping Left"]
    assert lines(tmp_path / "train_videofolder.txt") == ["1 3 2", "2 4 1"]
    assert lines(tmp_path / "val_videofolder.txt") == ["3 5 0"]
    assert not (tmp_path / "test_videofolder.txt").exists()


@pytest.fixture
def sthv2(tmp_path):
    classes = ["Approaching something with your camera", "Holding something", "Dropping something onto something"]
    train = [
        {"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
        {"id": "5", "label": "dropping a on b", "template": "Dropping [something] onto [something]"},
    ]
    val = [{"id": "6", "template": "Approaching [something] with your camera"}]
    labels = {name: str(classes.index(name)) for name in sorted(classes, reverse=True)}
    for name, data in (("labels", labels), ("train", train), ("validation", val), ("test", [{"id": "7"}])):
        (tmp_path / f"something-something-v2-{name}.json").write_text(json.dumps(data))
    make_folders(tmp_path / "frames", dict.fromkeys(("78687", "5", "6", "7"), 3), "{:06d}.jpg")
    return tmp_path, classes


def test_sthv2(sthv2):
    folder, classes = sthv2
    assert gen(gen_label_sthv2, folder / "frames", folder, folder) == 0
    assert lines(folder / "category.txt") == classes
    assert lines(folder / "train_videofolder.txt") == ["78687 3 1", "5 3 2"]
    assert lines(folder / "val_videofolder.txt") == ["6 3 0"]
    assert lines(folder / "test_videofolder.txt") == ["7 3 0"]
    (folder / "labels").mkdir()
    for path in list(folder.glob("*.json")):  # as in newer packages
        path.rename(folder / "labels" / path.name.removeprefix("something-something-v2-"))
    assert gen(gen_label_sthv2, folder / "frames", folder, folder, "--flow") == 0
    assert lines(folder / "val_videofolder_flow.txt") == ["6 3 0"]  # packed: a file a frame


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels", "{\n}}", r"labels\.json:2: not valid json"),
        ("labels", "[]", "holds a list, expected a dict"),
        ("labels", '{"a": "0", "b": "2"}', "labels must be 0 to 1"),
        ("labels", '{"a": "x"}', "no whole number"),
        ("train", '[{"id": "1", "template": "Eating [something]"}]', r"item 1 \(id 1\): template 'Eating something'"),
        ("train", '[{"template": "a"}]', "item 1 has no id"),
        ("train", "7", "holds a int, expected a list"),
    ],
)
def test_sthv2_mistakes(sthv2, name, content, message):
    folder, _ = sthv2
    (folder / f"something-something-v2-{name}.json").write_text(content)
    with pytest.raises(InputError, match=message):
        gen(gen_label_sthv2, folder / "frames", folder, folder)
    assert not list(folder.glob("*.txt"))


# --- UCF101, HMDB51 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ucf101(tmp_path):
    write(tmp_path / "labels/classInd.txt", "1 ApplyEyeMakeup", "2 Archery")
    for split in (1, 2, 3):
        train = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", "Archery/v_Archery_g08_c01.avi 2"]
        write(tmp_path / f"labels/trainlist0{split}.txt", *train)
        write(tmp_path / f"labels/testlist0{split}.txt", f"Archery/v_Archery_g0{split}_c01.avi")
    videos = ["v_ApplyEyeMakeup_g08_c01", "Archery/v_Archery_g08_c01", *(f"v_Archery_g0{s}_c01" for s in (1, 2, 3))]
    make_folders(tmp_path / "jpg", dict.fromkeys(videos, 5))
    make_folders(tmp_path / "jpg", dict.fromkeys(videos, 4), "flow_{}_{:05d}.jpg")
    return tmp_path


def test_ucf101(ucf101):
    out = ucf101 / "file_list"
    assert gen(gen_label_ucf101, ucf101 / "jpg", out, ucf101 / "labels") == 0
    expected = ["v_ApplyEyeMakeup_g08_c01 5 0", "Archery/v_Archery_g08_c01 5 1"]
    for split in (1, 2, 3):
        assert lines(out / f"ucf101_rgb_train_split_{split}.txt") == expected
        assert lines(out / f"ucf101_rgb_val_split_{split}.txt") == [f"v_Archery_g0{split}_c01 5 1"]
    assert gen(gen_label_ucf101, ucf101 / "jpg", out, ucf101 / "labels", "--flow", "--splits", "2") == 0
    assert lines(out / "ucf101_flow_val_split_2.txt") == ["v_Archery_g02_c01 4 1"]
    assert not (out / "ucf101_flow_val_split_1.txt").exists()
    assert lines(out / "category.txt") == ["ApplyEyeMakeup", "Archery"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("classInd.txt", "3 Archery", r"classInd\.txt:1: expected `1 Name`"),
        ("trainlist01.txt", "v_Archery_g08_c01.avi", r"trainlist01\.txt:1: expected `Class/video"),
        ("trainlist01.txt", "Archery/v_x.avi 1", r"trainlist01\.txt:1: label 1 is not that of Archery"),
        ("testlist03.txt", "Boxing/v_x.avi", r"testlist03\.txt:1: expected"),
    ],
)
def test_ucf101_mistakes(ucf101, file, line, message):
    write(ucf101 / "labels" / file, line)
    with pytest.raises(InputError, match=message):
        gen(gen_label_ucf101, ucf101 / "jpg", ucf101 / "file_list", ucf101 / "labels")
    assert not (ucf101 / "file_list").exists()


def test_annotations_in_a_folder_further_down_are_pointed_to(ucf101):
    with pytest.raises(InputError, match=r"classInd\.txt: no such file, but .*labels/classInd\.txt is there"):
        gen(gen_label_ucf101, ucf101 / "jpg", ucf101 / "file_list", ucf101)


def test_ucf101_folders_by_other_names(tmp_path):
    """With the `.avi` that many extractors keep, in split folders, and in the two spellings of one class's videos."""
    write(tmp_path / "classInd.txt", "1 Archery", "2 HandstandPushups")
    write(
        tmp_path / "trainlist01.txt",
        "Archery/v_Archery_g08_c01.avi 1",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
    )
    write(
        tmp_path / "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"
    )
    train = ["train/Archery/v_Archery_g08_c01.avi", "HandstandPushups/v_HandstandPushups_g08_c01"]
    val = ["v_Archery_g01_c01.avi", "HandStandPushups/v_HandStandPushups_g01_c01.AVI"]
    make_folders(tmp_path / "jpg", dict.fromkeys([*train, *val], 3))
    assert gen(gen_label_ucf101, tmp_path / "jpg", tmp_path, tmp_path, "--splits", "1") == 0
    for subset, paths in (("train", train), ("val", val)):
        expected = [f"{path} 3 {label}" for label, path in enumerate(paths)]
        assert lines(tmp_path / f"ucf101_rgb_{subset}_split_1.txt") == expected


@pytest.fixture
def hmdb51(tmp_path):
    odd = "#20_Rhythm_clap_u_nm_np1_fr_goo_0"
    for split in (1, 2, 3):
        write(tmp_path / f"splits/clap_test_split{split}.txt", f"{odd}.avi 1 ", f"clap_{split}.avi 2 ", "unused.avi 0 ")
        write(tmp_path / f"splits/brush_hair_test_split{split}.txt", "b (1)!.avi 1 ", "c.avi 2 ")
    videos = [f"clap/{odd}", "clap/clap_1", "clap/clap_2", "clap_3", "brush_hair/b (1)!", "brush_hair/c"]
    make_folders(tmp_path / "images", dict.fromkeys(videos, 4))
    return tmp_path


def test_hmdb51(hmdb51):
    out = hmdb51 / "lists"
    assert gen(gen_label_hmdb51, hmdb51 / "images", out, hmdb51 / "splits") == 0
    for split, place in ((1, "clap/clap_1"), (2, "clap/clap_2"), (3, "clap_3")):
        assert lines(out / f"hmdb51_rgb_train_split_{split}.txt") == [
            "brush_hair/b (1)! 4 0",
            "clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0 4 1",
        ]
        assert lines(out / f"hmdb51_rgb_val_split_{split}.txt") == ["brush_hair/c 4 0", f"{place} 4 1"]
    assert lines(out / "category.txt") == ["brush_hair", "clap"]


def test_hmdb51_mistakes(hmdb51):
    args = (gen_label_hmdb51, hmdb51 / "images", hmdb51 / "lists", hmdb51 / "splits")
    path = write(hmdb51 / "splits/clap_test_split2.txt", "x.avi 1", "y.avi 3")
    with pytest.raises(InputError, match=r"clap_test_split2\.txt:2: expected `video\.avi 0\|1\|2`"):
        gen(*args)
    path.unlink()
    with pytest.raises(InputError, match=r"clap_test_split2\.txt: no such file"):
        gen(*args)
    assert gen(*args, "--splits", "1", "3") == 0
    with pytest.raises(InputError, match="no files such as brush_hair_test_split1"):
        gen(gen_label_hmdb51, hmdb51 / "images", hmdb51 / "lists", hmdb51 / "images")
    (hmdb51 / "up").mkdir()
    (hmdb51 / "splits").rename(hmdb51 / "up/splits")
    with pytest.raises(InputError, match=r"in it, but .*up/splits/brush_hair_test_split1\.txt is there"):
        gen(gen_label_hmdb51, hmdb51 / "images", hmdb51 / "lists", hmdb51 / "up")
    with pytest.raises(InputError, match="nowhere does not exist"):
        gen(gen_label_hmdb51, hmdb51 / "nowhere", hmdb51 / "lists", hmdb51 / "splits")


def test_folder_without_annotations(tmp_path):
    with pytest.raises(InputError, match=r"labels\.json: no such file"):
        gen(gen_label_sthv2, tmp_path, tmp_path / "o", tmp_path)
