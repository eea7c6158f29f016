"""Extraction: every frame, the right names, nothing half-written, broken videos reported."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ops.common.errors import InputError
from ops.data.sources import VideoFile
from tests.helpers import make_frames, make_video
from tools import vid2img_kinetics, vid2img_sthv2
from tools.shared import extraction

ODD_NAMES = ['it\'s "odd"', "$(touch owned)", "-rf", "ünï cödé", "a;b|c&d", "100%d", "a...", "concat:x"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def extract(root, out, *options):
    return vid2img_kinetics.main([str(root), str(out), "--jobs", "1", *options])


def size(path):
    with Image.open(path) as image:
        return image.size


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, int)


def cut(path, share=0.5):
    """Cut the end off a file whose index is at its start."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_layout_count_and_height(tmp_path):
    make_video(tmp_path / "v/train/class one/clip.mp4", make_frames(7, (64, 48)))
    make_video(tmp_path / "v/train/class two/clip.avi", make_frames(3, (40, 60)))
    assert extract(tmp_path / "v", tmp_path / "o") == 0
    one = tmp_path / "o/train/class one/clip"
    assert names(one) == [f"img_{i:05d}.jpg" for i in range(1, 8)]
    assert size(one / "img_00001.jpg") == (round(64 * 331 / 48), 331)
    assert size(tmp_path / "o/train/class two/clip/img_00003.jpg") == (round(40 * 331 / 60), 331)


def test_pictures_are_those_of_training_from_video(tmp_path):
    video = make_video(tmp_path / "v/c/clip.mp4", make_frames(5, (64, 48)))
    extract(tmp_path / "v", tmp_path / "o", "--height", "0", "--quality", "100")
    expected = VideoFile(video, backend="pillow").read(range(5))
    for number, picture in enumerate(expected, start=1):
        written = pixels(tmp_path / f"o/c/clip/img_{number:05d}.jpg")
        assert written.shape == (48, 64, 3)
        assert np.abs(written - np.asarray(picture)).mean() < 1.5


def test_odd_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ODD_NAMES:
        make_video(tmp_path / "v.mp4", make_frames(2)).rename(_parent(tmp_path / "v" / name) / f"{name}.mp4")
    assert extract("v", "o") == 0
    for name in ODD_NAMES:
        assert names(tmp_path / "o" / name / name) == ["img_00001.jpg", "img_00002.jpg"]
    assert names(tmp_path) == ["o", "v"]


def _parent(path):
    path.mkdir(parents=True)
    return path


def test_second_run_redoes_only_what_is_half_done(tmp_path, capsys):
    for name in "abc":
        make_video(tmp_path / f"v/c/{name}.mp4", make_frames(4))
    extract(tmp_path / "v", tmp_path / "o")
    done, half = tmp_path / "o/c/a", tmp_path / "o/c/b"
    stamp = (done / "img_00001.jpg").stat().st_mtime_ns
    half.rename(extraction.partial_folder(half))  # as a killed run leaves it
    (extraction.partial_folder(half) / "img_00009.jpg").touch()
    capsys.readouterr()
    assert extract(tmp_path / "v", tmp_path / "o") == 0
    assert capsys.readouterr().out == "frames written: 4 (videos finished before: 2)\nvideos extracted: 3 of 3\n"
    assert (done / "img_00001.jpg").stat().st_mtime_ns == stamp
    assert len(names(half)) == 4 and names(tmp_path / "o/c") == ["a", "b", "c"]
    assert extract(tmp_path / "v", tmp_path / "o", "--overwrite", "--height", "20") == 0
    assert size(done / "img_00001.jpg")[1] == 20


def test_every_file_that_opens_is_taken_and_the_others_are_named(tmp_path, capsys):
    root = tmp_path / "v/c"
    names_on_disk = ["a.mts", "b.m2ts", "c.vob", "d.asf", "e.ts", "f.MPG", "unknown.ending", "no_ending"]
    for name in names_on_disk:
        suffix = {".mts": ".ts", ".m2ts": ".ts", ".vob": ".mpg", ".asf": ".asf"}.get(name[name.find(".") :], ".ts")
        made = make_video(
            root / f"made{suffix}", make_frames(12, (64, 48)), codec="mpeg2video" if suffix != ".asf" else "mpeg4"
        )
        made.rename(root / name)
    for name in ("notes.txt", "picture.jpg", ".hidden"):
        (root / name).write_text("no video")
    assert extract(tmp_path / "v", tmp_path / "o") == 0
    out, err = capsys.readouterr()
    assert "videos extracted: 8 of 8" in out
    assert "no video, left out: 2 files\n  c/notes.txt\n  c/picture.jpg\n" in err
    assert names(tmp_path / "o/c") == ["a", "b", "c", "d", "e", "f", "no_ending", "unknown"]


def test_broken_videos_are_reported_and_leave_nothing(tmp_path, capsys):
    root = tmp_path / "v/c"
    make_video(root / "good.mp4", make_frames(5))
    (root / "text.mp4").write_text("hello, I am no video")
    (root / "empty.webm").touch()
    make_video(root / "no index.mp4", make_frames(5))
    cut(root / "no index.mp4")
    assert extract(tmp_path / "v", tmp_path / "o") == 1
    out, err = capsys.readouterr()
    assert "videos extracted: 1 of 4" in out
    failures = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failures] == ["c/empty.webm", "c/no index.mp4", "c/text.mp4"]
    assert names(tmp_path / "o/c") == ["good"]


@pytest.mark.parametrize(("name", "codec"), [("cut.avi", "mpeg4"), ("cut.mkv", "mpeg4"), ("cut.webm", "libvpx-vp9")])
def test_cut_video_is_damaged_and_its_frames_can_be_kept(tmp_path, capsys, name, codec):
    cut(make_video(tmp_path / "v/c" / name, make_frames(40, (160, 120)), codec=codec))
    assert extract(tmp_path / "v", tmp_path / "o") == 1
    assert f"failed: c/{name}: " in capsys.readouterr().err
    assert not (tmp_path / "o/c/cut").exists()
    assert extract(tmp_path / "v", tmp_path / "o", "--keep_damaged") == 1
    kept = len(names(tmp_path / "o/c/cut"))
    assert 5 < kept < 40
    assert f"its first {kept} frames were kept" in capsys.readouterr().err


def test_too_long_a_video_is_refused(tmp_path, capsys):
    make_video(tmp_path / "v/c/long.mp4", make_frames(9))
    assert extract(tmp_path / "v", tmp_path / "o", "--max_frames", "8") == 1
    assert "more than 8 frames" in capsys.readouterr().err
    assert extract(tmp_path / "v", tmp_path / "o", "--max_frames", "9") == 0


def test_two_videos_never_share_a_folder(tmp_path, capsys):
    make_video(tmp_path / "v/c/x.avi", make_frames(2))
    make_video(tmp_path / "v/c/x.mp4", make_frames(3))
    assert extract(tmp_path / "v", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert "c/x.mp4: its frames would share a folder with those of x.avi" in err
    assert len(names(tmp_path / "o/c/x")) == 2 and names(tmp_path / "o/c") == ["x"]


def test_frames_join_what_is_in_their_folder(tmp_path):
    """Flow that was extracted first, or a folder of further videos, is neither taken for the frames nor removed."""
    make_video(tmp_path / "v/c/x.mp4", make_frames(2))
    (tmp_path / "o/c/x/further").mkdir(parents=True)
    (tmp_path / "o/c/x/flow_x_00001.jpg").touch()
    kept = ["flow_x_00001.jpg", "further", "img_00001.jpg", "img_00002.jpg"]
    assert extract(tmp_path / "v", tmp_path / "o") == 0
    assert names(tmp_path / "o/c/x") == kept and names(tmp_path / "o/c") == ["x"]
    make_video(tmp_path / "v/c/x.mp4", make_frames(1))
    assert extract(tmp_path / "v", tmp_path / "o", "--overwrite") == 0
    assert names(tmp_path / "o/c/x") == kept[:3]


def test_wrong_roots(tmp_path):
    with pytest.raises(InputError, match="no videos"):
        extract(tmp_path, tmp_path / "o")
    with pytest.raises(InputError, match="none does not exist"):
        extract(tmp_path / "none", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_several_processes_extract_the_same(tmp_path):
    for number in range(5):
        make_video(tmp_path / f"v/c/{number}.mp4", make_frames(3, seed=number))
    extract(tmp_path / "v", tmp_path / "one")
    assert vid2img_kinetics.main([str(tmp_path / "v"), str(tmp_path / "two"), "--jobs", "3"]) == 0
    for path in (tmp_path / "one").rglob("*.jpg"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_sthv2(tmp_path, capsys):
    make_video(tmp_path / "v/78687.webm", make_frames(4, (64, 48)), codec="libvpx-vp9")
    make_video(tmp_path / "v/90.mp4", make_frames(2))  # converted
    (tmp_path / "v/readme.txt").touch()
    assert vid2img_sthv2.main([str(tmp_path / "v"), str(tmp_path / "o"), "--jobs", "1"]) == 0
    assert "no video, left out: 1 file\n  readme.txt\n" in capsys.readouterr().err
    assert names(tmp_path / "o") == ["78687", "90"]
    assert names(tmp_path / "o/78687") == [f"{i:06d}.jpg" for i in range(1, 5)]
    assert size(tmp_path / "o/78687/000001.jpg")[1] == 256
