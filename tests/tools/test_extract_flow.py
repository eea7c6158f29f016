"""Optical flow: signs, scale, file layouts, restarts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from ops.common.errors import InputError
from ops.data.sources import FrameFolder
from ops.dataset import TSNDataSet
from tests.helpers import make_frame_folder, make_list, make_video
from tools import extract_flow, gen_label_kinetics

cv2 = pytest.importorskip("cv2", reason="optical flow needs OpenCV: requirements-flow.txt")


def moving_texture(num_frames, dx, dy, size=(96, 64), seed=0):
    """Smooth noise that moves by (dx, dy) whole pixels a frame, uint8 (F, H, W, 3)."""
    rng = np.random.default_rng(seed)
    width, height = size
    margin = num_frames * max(abs(dx), abs(dy))
    small = Image.fromarray(rng.integers(0, 255, (20, 24), dtype=np.uint8))
    large = np.asarray(small.resize((width + 2 * margin, height + 2 * margin), Image.Resampling.BICUBIC))
    frames = [
        large[margin - f * dy : margin - f * dy + height, margin - f * dx : margin - f * dx + width]
        for f in range(num_frames)
    ]
    return np.repeat(np.stack(frames)[..., None], 3, axis=3)


def write_frames(folder, frames, tmpl="img_{:05d}.jpg"):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / tmpl.format(number), quality=95)


def extract(source, out, *options):
    return extract_flow.main([str(source), str(out), "--jobs", "1", *options])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def inner(image):
    """Mean of a picture without its border, where flow leaves the view."""
    return np.asarray(image, float)[12:-12, 12:-12].mean()


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-3, 0), (0, 2), (0, -2), (2, -3)])
def test_flow_of_a_known_motion(tmp_path, dx, dy):
    write_frames(tmp_path / "rgb/c/v", moving_texture(4, dx, dy))
    assert extract(tmp_path / "rgb", tmp_path / "flow", "--bound", "10") == 0
    frames = FrameFolder(tmp_path / "flow/c/v", "img_{:05d}.jpg", "Flow", "pillow").read([0, 1, 2])
    for x, y in frames:  # 255 / (2 * 10) levels a pixel around 127.5: x to the right, y down
        assert inner(x) == pytest.approx(127.5 + 12.75 * dx, abs=4)
        assert inner(y) == pytest.approx(127.5 + 12.75 * dy, abs=4)


def test_quantise():
    flow = np.array([-30, -20, -10, 0, 0.1, 10, 20, 30], np.float32)
    # round(255 (v + 20) / 40), and numpy rounds halves to even
    np.testing.assert_array_equal(extract_flow.quantise(flow, 20), [0, 0, 64, 128, 128, 191, 255, 255])


@pytest.mark.parametrize(
    ("layout", "tmpl", "first", "count"),
    [
        ("kinetics", "img_{:05d}.jpg", ["img_00001.jpg"], 1),
        ("somethingv2", "{:06d}.jpg", ["000001.jpg"], 1),
        ("jester", "{:05d}.jpg", ["00001.jpg"], 1),
        ("something", "{:05d}.jpg", ["000007-x_00001.jpg", "000007-y_00001.jpg"], 2),
        ("ucf101", "img_{:05d}.jpg", ["flow_x_00001.jpg", "flow_y_00001.jpg"], 2),
        ("hmdb51", "img_{:05d}.jpg", ["flow_x_00001.jpg", "flow_y_00001.jpg"], 2),
    ],
)
def test_layouts_are_read_by_the_data_set(tmp_path, layout, tmpl, first, count):
    write_frames(tmp_path / "rgb/7", moving_texture(6, 2, 0, (48, 40)), tmpl)
    assert extract(tmp_path / "rgb", tmp_path / "flow", "--layout", layout) == 0
    files = names(tmp_path / "flow/7")
    assert len(files) == 6 * count and set(first) <= set(files)
    with Image.open(tmp_path / "flow/7" / first[0]) as image:
        assert image.mode == ("RGB" if count == 1 else "L") and image.size == (48, 40)
        if count == 1:
            assert np.asarray(image)[..., 2].max() < 8  # (x, y, 0)
    spec = extract_flow.DATASETS[layout]
    listed = 12 if layout == "something" else 6
    data = TSNDataSet(
        tmp_path / "flow",
        make_list(tmp_path / "list.txt", [("7", listed, 0)]),
        2,
        2,
        "Flow",
        spec.flow_tmpl,
        random_shift=False,
    )
    assert data[0][0].numel() == 2 * 2 * 2 * 40 * 48  # T, L, x and y, height, width


def test_frame_counts(tmp_path):
    write_frames(tmp_path / "rgb/a", moving_texture(5, 1, 0, (48, 40)))
    write_frames(tmp_path / "rgb/one", moving_texture(1, 1, 0, (48, 40)))
    assert extract(tmp_path / "rgb", tmp_path / "same") == 0
    assert len(names(tmp_path / "same/a")) == 5
    assert (tmp_path / "same/a/img_00005.jpg").read_bytes() == (tmp_path / "same/a/img_00004.jpg").read_bytes()
    still = FrameFolder(tmp_path / "same/one", "img_{:05d}.jpg", "Flow", "pillow").read([0])[0]
    assert {int(np.asarray(channel).max()) - int(np.asarray(channel).min()) for channel in still} == {0}
    assert extract(tmp_path / "rgb", tmp_path / "less", "--drop_last") == 1  # of a single frame there is none
    assert len(names(tmp_path / "less/a")) == 4 and not (tmp_path / "less/one").exists()


def test_flow_lies_beside_the_frames_and_is_listed(tmp_path):
    folder = tmp_path / "jpg/a/v"
    write_frames(folder, moving_texture(5, 1, 0, (48, 40)))
    frame = (folder / "img_00001.jpg").read_bytes()
    options = (tmp_path / "jpg", tmp_path / "jpg", "--layout", "ucf101")
    assert extract(*options) == 0
    assert len(names(folder)) == 15 and (folder / "img_00001.jpg").read_bytes() == frame
    stamp = (folder / "flow_x_00002.jpg").stat().st_mtime_ns
    assert extract(*options) == 0
    assert (folder / "flow_x_00002.jpg").stat().st_mtime_ns == stamp
    # As a run leaves it that was killed while it moved its files into place: frame 1 comes last.
    (folder / "flow_x_00001.jpg").unlink()
    (folder / ".flow.partial").mkdir()
    (folder / ".flow.partial" / "flow_x_00001.jpg").touch()
    assert extract(*options) == 0
    assert len(names(folder)) == 15
    assert (folder / "flow_x_00002.jpg").stat().st_mtime_ns != stamp
    make = [str(tmp_path / "jpg"), "--out", str(tmp_path / "l"), "--from_folders", "--val_share", "0", "-j", "1"]
    assert gen_label_kinetics.main([*make, "--flow", "--image_tmpl", "flow_{}_{:05d}.jpg"]) == 0
    assert (tmp_path / "l/train_videofolder_flow.txt").read_text() == "a/v 5 0\n"


def test_from_video_files_at_a_height(tmp_path):
    make_video(tmp_path / "v/c/clip.mp4", moving_texture(4, 2, 0))
    assert extract(tmp_path / "v", tmp_path / "o", "--videos", "--height", "48", "--bound", "5") == 0
    x, _ = FrameFolder(tmp_path / "o/c/clip", "img_{:05d}.jpg", "Flow", "pillow").read([1])[0]
    assert x.size == (72, 48)
    assert inner(x) == pytest.approx(127.5 + 25.5 * 2 * 48 / 64, abs=8)  # in pixels of the written size


def test_damaged_and_odd_sources_are_reported(tmp_path, capsys):
    write_frames(tmp_path / "rgb/good '$(x)'", moving_texture(3, 1, 0, (48, 40)))
    write_frames(tmp_path / "rgb/gap", moving_texture(4, 1, 0, (48, 40)))
    (tmp_path / "rgb/gap/img_00002.jpg").unlink()
    write_frames(tmp_path / "rgb/cut", moving_texture(3, 1, 0, (48, 40)))
    (tmp_path / "rgb/cut/img_00002.jpg").write_bytes((tmp_path / "rgb/cut/img_00002.jpg").read_bytes()[:300])
    write_frames(tmp_path / "rgb/sizes", moving_texture(2, 1, 0, (48, 40)))
    write_frames(tmp_path / "rgb/late", moving_texture(3, 1, 0, (48, 40)))
    (tmp_path / "rgb/late/img_00001.jpg").unlink()
    make_frame_folder(tmp_path / "other", 1, (30, 30))
    (tmp_path / "other/img_00001.jpg").replace(tmp_path / "rgb/sizes/img_00002.jpg")
    assert extract(tmp_path / "rgb", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert "failed: gap: img_00002.jpg is missing" in err
    assert "failed: late: img_00001.jpg is missing, though 3 is there" in err
    assert "failed: cut: " in err and "failed: sizes: frame 2 has another size than frame 1" in err
    assert names(tmp_path / "o") == ["good '$(x)'"]


def test_linked_folders_and_videos_of_one_name(tmp_path, capsys):
    make_video(tmp_path / "disk/c/x.mp4", moving_texture(3, 1, 0, (48, 40)))
    make_video(tmp_path / "disk/c/x.avi", moving_texture(4, 1, 0, (48, 40)))
    (tmp_path / "v").mkdir()
    (tmp_path / "v/train").symlink_to(tmp_path / "disk")
    assert extract(tmp_path / "v", tmp_path / "o", "--videos") == 1
    assert "failed: train/c/x.mp4: its frames would share a folder with those of x.avi" in capsys.readouterr().err
    assert len(names(tmp_path / "o/train/c/x")) == 4


def test_mistakes(tmp_path):
    write_frames(tmp_path / "rgb/a", moving_texture(2, 1, 0, (48, 40)))
    for options, message in (
        ((tmp_path / "rgb", tmp_path / "rgb"), "needs a folder of its own"),
        ((tmp_path / "rgb", tmp_path / "o", "--bound", "0"), "--bound 0 must be above 0"),
        ((tmp_path / "rgb", tmp_path / "o", "--layout", "jester"), r"no folders with 00001\.jpg in it, but img_00001"),
        ((tmp_path / "rgb", tmp_path / "o", "--videos"), "no video files"),
        ((tmp_path / "none", tmp_path / "o"), "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            extract(*options)


def test_missing_modules_say_what_to_install(monkeypatch):
    if not hasattr(cv2, "optflow"):
        with pytest.raises(InputError, match="pip install opencv-contrib-python"):
            extract_flow.flow_function("tvl1")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"requirements-flow\.txt"):
        extract_flow.flow_function("dis")
