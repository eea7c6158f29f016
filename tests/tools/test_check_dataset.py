"""The checker finds every untruth of a list, and mends it."""

from __future__ import annotations

import pytest

from ops.common.errors import InputError
from ops.data.sources import VideoFile
from tests.helpers import make_frame_folder, make_frames, make_kinetics_tree, make_list, make_video
from tools import check_dataset


def check(*options):
    return check_dataset.main([*map(str, options), "--jobs", "1"])


@pytest.fixture
def damaged(tmp_path):
    """A root and a list of it with a line for each kind of damage."""
    root = tmp_path / "root"
    for name in ("good", "more", "fewer", "gap", "cut last", "cut inside", "size", "it's $(odd)"):
        make_frame_folder(root / name, 6, seed=len(name))
    (root / "gap/img_00003.jpg").unlink()
    for name, number in (("cut last", 6), ("cut inside", 2)):
        path = root / name / f"img_{number:05d}.jpg"
        path.write_bytes(path.read_bytes()[:-200])
    make_frame_folder(root / "small", 1, size=(20, 20))
    (root / "small/img_00001.jpg").replace(root / "size/img_00006.jpg")
    (root / "empty").mkdir()
    listed = [("good", 6, 0), ("more", 5, 0), ("fewer", 9, 1), ("gap", 6, 1), ("cut last", 6, 0), ("cut inside", 6, 0)]
    listed += [("size", 6, 0), ("it's $(odd)", 6, 1), ("gone", 6, 0), ("empty", 6, 0), ("./good", 6, 1)]
    return root, make_list(tmp_path / "list.txt", listed)


def problems_of(err, list_file):
    """Line number -> what is wrong."""
    lines = [line.removeprefix(f"{list_file}:") for line in err.splitlines() if line.startswith(f"{list_file}:")]
    return {int(line.split(":")[0]): line.split(": ", 2)[2] for line in lines}


def test_every_kind_of_damage_is_found(damaged, capsys):
    root, list_file = damaged
    assert check(list_file, root, "--decode", "all") == 1
    out, err = capsys.readouterr()
    found = problems_of(err, list_file)
    expected = {
        2: "5 frames listed, 6 on disk",
        3: "9 frames listed, 6 on disk",
        4: "img_00003.jpg is missing among later frames",
        5: "img_00006.jpg: damaged JPEG",
        6: "img_00002.jpg: damaged JPEG",
        7: "frame 6 has 20 x 20 pixels, the first 40 x 30",
        9: "cannot list the frames",
        10: "no frames",
        11: "the same video as in line 1",
    }
    assert found.keys() == expected.keys()
    assert all(found[line].startswith(text) for line, text in expected.items()), found
    assert not any(".cpp" in text for text in found.values())  # where the decoder was built says nothing to the user
    assert f"{list_file}: 2 of 11 videos as listed" in out


def test_decode_some_looks_at_first_middle_and_last_frame(damaged, capsys):
    root, list_file = damaged
    check(list_file, root)
    assert {5, 7} <= problems_of(capsys.readouterr().err, list_file).keys()
    check(list_file, root, "--decode", "none")
    assert not {5, 6, 7} & problems_of(capsys.readouterr().err, list_file).keys()


def test_fix_writes_a_list_without_problems(damaged, tmp_path, capsys):
    root, list_file = damaged
    before = list_file.read_bytes()
    assert (
        check(list_file, root, "--decode", "all", "--fix", tmp_path / "new.txt", "--report", tmp_path / "why.txt") == 1
    )
    assert (tmp_path / "new.txt").read_text().splitlines() == [
        *("good 6 0", "more 6 0", "fewer 6 1"),
        *("gap 2 1", "it's $(odd) 6 1"),
    ]
    assert len((tmp_path / "why.txt").read_text().splitlines()) == 9
    assert "5 videos (3 recounted, 6 dropped)" in capsys.readouterr().out
    assert list_file.read_bytes() == before
    (root / "gap/img_00004.jpg").rename(root / "gap/x.jpg")
    (root / "gap/img_00005.jpg").unlink(), (root / "gap/img_00006.jpg").unlink()
    assert check(tmp_path / "new.txt", root, "--decode", "all") == 0


def test_fix_refuses_to_write_an_empty_list(tmp_path):
    (tmp_path / "root").mkdir()
    list_file = make_list(tmp_path / "list.txt", [("gone", 6, 0)])
    with pytest.raises(InputError, match="would be empty"):
        check(list_file, tmp_path / "root", "--fix", tmp_path / "new.txt")
    assert not (tmp_path / "new.txt").exists()


def test_data_set_by_name_checks_both_lists(tmp_path, capsys):
    make_kinetics_tree(tmp_path, num_videos=3, num_frames=4)
    options = ("kinetics", "--root_dataset", tmp_path, "--num_class", 2)
    assert check(*options) == 0
    assert capsys.readouterr().out.count("3 of 3 videos as listed") == 2
    val = tmp_path / "kinetics/labels/val_videofolder.txt"
    val.write_text(val.read_text() + "train/class 0/video_0 4 0\n")
    assert check(*options) == 1
    assert "videos in both lists: 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="label 1 is out of range"):
        check(*options[:-1], 1)


def test_flow_of_something_v1_counts_two_files_a_frame(tmp_path):
    make_frame_folder(tmp_path / "root/12", 5, tmpl="{:06d}-{}_{:05d}.jpg")
    options = ("--modality", "Flow", "--image_tmpl", "{:06d}-{}_{:05d}.jpg", "--fix", tmp_path / "new.txt")
    assert check(make_list(tmp_path / "a.txt", [("12", 10, 0)]), tmp_path / "root", *options) == 0
    assert check(make_list(tmp_path / "b.txt", [("12", 8, 0)]), tmp_path / "root", *options) == 1
    assert (tmp_path / "new.txt").read_text() == "12 10 0\n"
    (tmp_path / "root/12/000012-y_00005.jpg").unlink()
    assert check(tmp_path / "a.txt", tmp_path / "root", *options) == 1
    assert (tmp_path / "new.txt").read_text() == "12 8 0\n"


@pytest.mark.parametrize("decode", ["some", "all"])
def test_video_files(tmp_path, capsys, decode):
    make_video(tmp_path / "root/a.mp4", make_frames(6))
    make_video(tmp_path / "root/b.mp4", make_frames(7))
    (tmp_path / "root/c.mp4").write_text("no video")
    list_file = make_list(tmp_path / "list.txt", [("a", 6, 0), ("b.mp4", 6, 0), ("c", 6, 0), ("d", 6, 0)])
    assert check(list_file, tmp_path / "root", "--io", "video", "--decode", decode, "--fix", tmp_path / "new.txt") == 1
    assert problems_of(capsys.readouterr().err, list_file).keys() == {2, 3, 4}
    assert (tmp_path / "new.txt").read_text() == "a 6 0\nb.mp4 7 0\n"


@pytest.mark.parametrize("decode", ["some", "all"])
def test_a_frame_that_only_reading_by_index_misses_is_found(tmp_path, capsys, monkeypatch, decode):
    make_video(tmp_path / "root/a.mp4", make_frames(6))

    def read(source, indices):
        raise InputError(f"{source.path}: frame {indices[0] + 1} is damaged")

    monkeypatch.setattr(VideoFile, "read", read)
    list_file = make_list(tmp_path / "list.txt", [("a", 6, 0)])
    assert check(list_file, tmp_path / "root", "--io", "video", "--decode", decode) == 1
    assert "a.mp4: frame 1 is damaged" in capsys.readouterr().err


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match="is no data set: give LIST and ROOT, or one of kinetics"):
        check("kinetiks")
    with pytest.raises(InputError, match=r"list file .*none\.txt is not there: give another LIST$"):
        check(tmp_path / "none.txt", tmp_path)
    with pytest.raises(InputError, match=r"folder .*none is not there: give another ROOT$"):
        check(tmp_path / "none.txt", tmp_path / "none")
    with pytest.raises(InputError, match=r"is not there: see --root_dataset$"):
        check("kinetics", "--root_dataset", tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_text("a 3 0\nb 3\n")
    with pytest.raises(InputError, match=r"bad\.txt:2: 2 fields"):
        check(bad, tmp_path)
    make_kinetics_tree(tmp_path, num_videos=2)
    with pytest.raises(InputError, match="--fix writes one list"):
        check("kinetics", "--root_dataset", tmp_path, "--fix", tmp_path / "x")
