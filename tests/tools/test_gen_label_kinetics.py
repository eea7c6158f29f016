"""Lists of Kinetics from its csv files, in the folders that people keep it in."""

from __future__ import annotations

import pytest
from torchvision.models.video import R3D_18_Weights

from ops.common.errors import InputError
from tests.helpers import make_frames, make_video
from tests.tools.helpers import HEADER, gen_kinetics, lines, make_folders, write
from tools import gen_label_kinetics


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


def test_kinetics_test_csv_without_labels(tmp_path):
    make_folders(tmp_path / "images", {"test/aaaaaaaaaaa_000001_000011": 3})
    csv_file = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split", "aaaaaaaaaaa,1,11,test")
    assert gen_kinetics(tmp_path, "--test_csv", str(csv_file)) == 0
    assert lines(tmp_path / "labels/test_videofolder.txt") == ["test/aaaaaaaaaaa_000001_000011 3 0"]


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


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        ("frame000001.jpg", r", but frame000001\.jpg: --image_tmpl 'frame\{:06d\}\.jpg'"),
        ("img_1.jpg", r", but img_1\.jpg: --image_tmpl 'img_\{:01d\}\.jpg'"),
        ("img_000001.jpg", r", but img_000001\.jpg: --image_tmpl 'img_\{:06d\}\.jpg'"),
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
