"""Lists from each data set's annotation files, in small copies of the format in which they are distributed."""

from __future__ import annotations

import json

import pytest
from torchvision.models.video import R3D_18_Weights

from ops.common.errors import InputError
from ops.dataset import TSNDataSet
from ops.dataset_configs import DataOptions, resolve_dataset
from tests.helpers import make_frame_folder, make_frames, make_video, run_cli
from tools import (
    gen_label_hmdb51,
    gen_label_jester,
    gen_label_kinetics,
    gen_label_sthv1,
    gen_label_sthv2,
    gen_label_ucf101,
)


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def write(path, *content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return path


# --- Kinetics ---------------------------------------------------------------------------------------------------------


def test_kinetics_label_map_is_the_400_names_in_order():
    names = lines(gen_label_kinetics.LABEL_MAP)
    assert len(names) == len(set(names)) == 400
    assert names == sorted(names)
    assert names == R3D_18_Weights.KINETICS400_V1.meta["categories"]  # torchvision's own list
    assert list(gen_label_kinetics.read_label_map(gen_label_kinetics.LABEL_MAP).values()) == list(range(400))


@pytest.mark.parametrize(
    ("label", "clean"),
    [
        ("petting animal (not cat)", "petting_animal_not_cat"),
        ("massaging person's head", "massaging_persons_head"),
        ('"abseiling"', "abseiling"),
    ],
)
def test_kinetics_clean_label(label, clean):
    assert gen_label_kinetics.clean_label(label) == clean


HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def make_folders(root, folders, tmpl="img_{:05d}.jpg"):
    for name, num_frames in folders.items():
        make_frame_folder(root / name, num_frames, (16, 16), tmpl)


@pytest.fixture
def kinetics(tmp_path):
    folders = {"abseiling/0347ZoDXyP0_000095_000105": 5, "zumba/only_id": 6}
    folders["petting_animal_not_cat/--q_5qTgQGs_000012_000022"] = 4  # a clean folder
    folders["val/massaging person's head/abc_000001_000011"] = 3  # a folder by its own name
    make_folders(tmp_path / "images", folders)
    write(
        tmp_path / "train.csv",
        HEADER,
        "abseiling,0347ZoDXyP0,95,105,train,1",
        "petting animal (not cat),--q_5qTgQGs,12,22,train,0",
        '"zumba",only_id,1,11,train,0',
        "yoga,gone,3,13,train,0",
    )
    write(tmp_path / "val.csv", HEADER, "massaging person's head,abc,1,11,validate,0")
    return tmp_path


def gen_kinetics(folder, *options):
    return gen_label_kinetics.main([str(folder / "images"), "--out", str(folder / "labels"), "--jobs", "1", *options])


def test_kinetics_csv(kinetics, capsys):
    csv_files = ["--train_csv", str(kinetics / "train.csv"), "--val_csv", str(kinetics / "val.csv")]
    assert gen_kinetics(kinetics, *csv_files) == 0
    names = lines(gen_label_kinetics.LABEL_MAP)
    assert lines(kinetics / "labels/train_videofolder.txt") == [
        "abseiling/0347ZoDXyP0_000095_000105 5 0",
        f"petting_animal_not_cat/--q_5qTgQGs_000012_000022 4 {names.index('petting animal (not cat)')}",
        f"zumba/only_id 6 {names.index('zumba')}",
    ]
    label = names.index("massaging person's head")
    assert lines(kinetics / "labels/val_videofolder.txt") == [
        f"val/massaging person's head/abc_000001_000011 3 {label}"
    ]
    assert lines(kinetics / "labels/category.txt") == names
    out, err = capsys.readouterr()
    assert "3 of 4 videos" in out
    root = kinetics / "images"
    looked = f"looked in {root / 'yoga'} (not there), {root}"
    assert f"missing, left out: 1 video\n  yoga: 1 of 1: gone_000003_000013; {looked}\n" in err
    assert gen_kinetics(kinetics, *csv_files[2:], "--flow") == 0
    assert (kinetics / "labels/val_videofolder_flow.txt").exists()


def test_kinetics_as_people_keep_it(tmp_path, capsys):
    """Flat split folders, class folders in other spellings, names with the file's suffix: each video has its label."""
    root, labels = tmp_path / "images", gen_label_kinetics.read_label_map(gen_label_kinetics.LABEL_MAP)
    places = {
        "train_256/Petting animal (not cat)/aaaaaaaaaaa_000001_000011": ("petting animal (not cat)", "aaaaaaaaaaa"),
        "train/massaging_person_s_head/bbbbbbbbbbb_000001_000011": ("massaging person's head", "bbbbbbbbbbb"),
        "train/petting_animal_(not_cat)/-ccccccccc__000001_000011": ("petting animal (not cat)", "-ccccccccc_"),
        "train/ddddddddddd_000001_000011": ("yoga", "ddddddddddd"),
        "zumba/eeeeeeeeeee_1_11": ("zumba", "eeeeeeeeeee"),
        "zumba/fffffffffff_000001_000011.mp4": ("zumba", "fffffffffff"),
    }
    make_folders(root, dict.fromkeys([*places, "val/yoga/ggggggggggg_000001_000011"], 3))
    rows = [f'"{label}",{video},1,11,train,0' for label, video in places.values()]
    csv_file = write(
        tmp_path / "train.csv", HEADER, *rows, *(f"yoga,{video},1,11,train,0" for video in ("ggggggggggg", "h"))
    )
    assert gen_kinetics(tmp_path, "--train_csv", str(csv_file)) == 0
    assert lines(tmp_path / "labels/train_videofolder.txt") == [
        f"{path} 3 {labels[gen_label_kinetics.clean_label(label)]}" for path, (label, _) in places.items()
    ]
    err = capsys.readouterr().err  # ggggggggggg is in the validation videos
    assert "missing, left out: 2 videos\n  yoga: 2 of 3: ggggggggggg_000001_000011, h_000001_000011; looked in" in err
    assert all(
        f"{place}" in err for place in (f"{root}/yoga (not there)", f"{root}/train/yoga (not there)", f"{root}/train,")
    )


def test_kinetics_video_files_in_flat_folders(tmp_path):
    for name in ("train/aaaaaaaaaaa_000001_000011.mp4", "val/bbbbbbbbbbb_000002_000012.mp4"):
        make_video(tmp_path / "images" / name, make_frames(4, (32, 32)))
    make_video(tmp_path / "images/train/c.mp4", make_frames(5, (32, 32))).rename(
        tmp_path / "images/train/c_000001_000011.mp4.avi"
    )
    train = write(tmp_path / "train.csv", HEADER, "zumba,aaaaaaaaaaa,1,11,train,0", "yoga,c,1,11,train,0")
    val = write(tmp_path / "val.csv", HEADER, "yoga,bbbbbbbbbbb,2,12,val,0")
    assert gen_kinetics(tmp_path, "--videos", "--train_csv", str(train), "--val_csv", str(val)) == 0
    assert lines(tmp_path / "labels/train_videofolder.txt") == [
        "train/aaaaaaaaaaa_000001_000011 4 399",
        "train/c_000001_000011.mp4 5 398",
    ]
    assert lines(tmp_path / "labels/val_videofolder.txt") == ["val/bbbbbbbbbbb_000002_000012 4 398"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["youtube_id,time_start,time_end,split"], r"bad.csv:1: no column label"),
        ([HEADER, "abseiling,a,1,2"], r"bad.csv:2: not as many fields as columns .6."),
        (
            [HEADER, "abseiling,a,1,11,train,0", "", "juggling cats,a,1,2,train,0"],
            r"bad.csv:4: class 'juggling cats' is not",
        ),
        ([HEADER, "abseiling,a,one,2,train,0"], r"bad.csv:2: 'one' and '2' are no times"),
        ([HEADER, '"abseiling,a,1,2,train,0'], r"bad.csv:2: "),
        ([HEADER], "names no videos"),
        ([], "names no videos"),
        ([HEADER, "abseiling,a,1,2,train,0"], "would be empty: none of its videos is in"),
    ],
)
def test_kinetics_csv_mistakes_name_file_and_line(kinetics, content, message):
    bad = write(kinetics / "bad.csv", *content)
    with pytest.raises(InputError, match=message):
        gen_kinetics(kinetics, "--train_csv", str(bad))
    assert not (kinetics / "labels").exists()


def test_kinetics_needs_one_source_of_labels(kinetics):
    for options in ([], ["--from_folders", "--val_csv", "x.csv"]):
        with pytest.raises(InputError, match="give either"):
            gen_kinetics(kinetics, *options)
    with pytest.raises(InputError, match=r"none.csv: no such file"):
        gen_kinetics(kinetics, "--val_csv", str(kinetics / "none.csv"))


# --- class folders ----------------------------------------------------------------------------------------------------


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
    make_video(tmp_path / "images/train/a/x.avi", make_frames(3))
    with pytest.raises(InputError, match="would be one video in a list"):
        gen_kinetics(tmp_path, "--from_folders", "--videos")


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


def test_group_mistakes(tmp_path, kinetics):
    with pytest.raises(InputError, match=r"--group 'film' matches nothing in abseiling/0347ZoDXyP0_000095_000105"):
        gen_kinetics(kinetics, "--from_folders", "--group", "film", "--val_share", "0.1")
    with pytest.raises(InputError, match="--group is for --from_folders"):
        gen_kinetics(kinetics, "--val_csv", str(kinetics / "val.csv"), "--group", "a")
    with pytest.raises(SystemExit):
        gen_kinetics(kinetics, "--from_folders", "--group", "(")


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
    assert f"{folder}/test_videofolder.txt: not written, none of 1 video is there" in err
    assert f"videos without a label: 1 of 1: 7; looked in {folder}/frames\n" in err
    (folder / "frames/6").rename(folder / "frames/8")
    assert gen(gen_label_sthv2, folder / "frames", folder, folder) == 1  # a run needs these
    assert "val_videofolder.txt: not written" in capsys.readouterr().err
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


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        ("frame000001.jpg", r", but frame000001\.jpg: --image_tmpl 'frame\{:06d\}\.jpg'"),
        ("flow_x_00001.jpg", r", but flow_x_00001\.jpg"),
        ("clip.mp4", r", but clip\.mp4"),
    ],
)
def test_frames_of_another_name_are_named(tmp_path, frame, advice):
    (tmp_path / "images/train/a/v").mkdir(parents=True)
    (tmp_path / "images/train/a/v" / frame).touch()
    with pytest.raises(InputError, match=rf"train/a/v: no frames: nothing like img_00001\.jpg in it{advice}$"):
        gen_kinetics(tmp_path, "--from_folders")


def test_videos_without_the_option_for_them(tmp_path, kinetics):
    make_video(tmp_path / "images/abseiling/b_000001_000011.mp4", make_frames(2, (32, 32)))
    csv_file = write(tmp_path / "b.csv", HEADER, "abseiling,b,1,11,train,0")
    with pytest.raises(InputError, match=r"abseiling holds .*: --videos lists video files"):
        gen_kinetics(tmp_path, "--train_csv", str(csv_file))
    with pytest.raises(InputError, match="--videos lists video files"):
        gen_label_kinetics.main([str(tmp_path / "images/abseiling"), "--out", str(tmp_path), "--from_folders"])


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
    for path in list(folder.glob("*.json")):  # their short names
        path.rename(folder / path.name.removeprefix("something-something-v2-"))
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
    with pytest.raises(InputError, match="nowhere does not exist"):
        gen(gen_label_hmdb51, hmdb51 / "nowhere", hmdb51 / "lists", hmdb51 / "splits")


def test_mistakes_are_one_line_and_status_2(tmp_path):
    args = ["tools/gen_label_sthv2.py", tmp_path, "--out", tmp_path / "o", "--annotations", tmp_path]
    done = run_cli(args, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "labels.json: no such file" in done.stderr
