"""Lists and clips: every layout against frames picked by hand, every damaged list and sample against its message."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torchvision

from ops.common.errors import InputError
from ops.data import sampling
from ops.dataset import TSNDataSet, VideoRecord, check_record, find_video_file, load_clip, quick_check, read_list
from ops.network.backbones import backbone_row
from ops.transforms import (
    ClipNormalize,
    ClipTransform,
    GroupCenterCrop,
    GroupFullResSample,
    GroupNormalize,
    GroupOverSample,
    GroupScale,
    Stack,
    ToTorchFormatTensor,
)
from ops.transforms import test_transform as make_test_transform
from tests.helpers import make_frame_folder, make_frames, make_list, make_packed_flow, make_video

TMPL = "img_{:05d}.png"  # lossless, so that values can be compared
FLOW_TMPL = "flow_{}_{:05d}.png"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two videos of 12 and 5 frames as RGB and flow files; returns (root, list file, frames of each)."""
    root = tmp_path_factory.mktemp("frames")
    frames = [make_frame_folder(root / name, count, tmpl=TMPL, seed=count) for name, count in (("a b", 12), ("c", 5))]
    make_frame_folder(root / "a b", 12, tmpl=FLOW_TMPL, seed=12)
    make_frame_folder(root / "c", 5, tmpl=FLOW_TMPL, seed=5)
    list_file = make_list(root / "list.txt", [("a b", 12, 1), ("c", 5, 0)])
    return root, list_file, frames


def dataset(data, **options):
    root, list_file, _ = data
    return TSNDataSet(root, list_file, **{"image_tmpl": TMPL, "num_segments": 4, **options})


def planes(frames, indices):
    """Plainest clip: frame after frame. (F, H, W, C) -> (len(indices), C, H, W)"""
    return torch.from_numpy(np.stack([frames[i].transpose(2, 0, 1) for i in indices]))


# --- lists -----------------------------------------------------------------------------------------------------------


def test_list_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('\ufeffdrinking beer/it\'s "$(x)" 1 30 7\r\n\r\nplain 0 0\n', encoding="utf-8")
    assert read_list(path, num_class=8) == [
        VideoRecord('drinking beer/it\'s "$(x)" 1', 30, 7, 1),
        VideoRecord("plain", 0, 0, 3),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty: it needs a line"),
        ("\n \n", "is empty"),
        ("ok 5 0\nvideo 12\n", r"list.txt:2: 2 fields in 'video 12', expected `path num_frames label`"),
        ("ok 5 0\nvideo 12.5 0\n", r"list.txt:2: num_frames must be a whole number of 0 or more, got '12.5'"),
        ("video 12 -1\n", r"list.txt:1: label must be a whole number of 0 or more, got '-1'"),
        ("video -12 1\n", r"list.txt:1: num_frames must be a whole number"),
        ("video 1_0 1\n", r"list.txt:1: num_frames must be a whole number"),
        ("video ١٢ 1\n", r"list.txt:1: num_frames must be a whole number"),
        ("video 1000000000 1\n", r"list.txt:1: num_frames 1000000000 is more than the limit"),
        (f"video {'9' * 5000} 1\n", r"list.txt:1: num_frames must be a whole number"),
        ("video 12 3\n", r"list.txt:1: label 3 is out of range: 3 classes are numbered 0 to 2"),
        ("a\0b 12 0\n", r"list.txt:1: the path .* zero byte"),
    ],
)
def test_damaged_lists(tmp_path, text, match):
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=match):
        read_list(path, num_class=3)


def test_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none.txt is not there: give --train_list .* --root_dataset"):
        read_list(tmp_path / "none.txt")
    with pytest.raises(InputError, match="directory"):
        read_list(tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"video \xff\xfe 1 0\n")
    with pytest.raises(InputError, match=r"binary.txt is not UTF-8 text \(byte 6\)"):
        read_list(tmp_path / "binary.txt")


def test_paths_may_be_absolute_or_links(tmp_path):
    make_frame_folder(tmp_path / "elsewhere", 4, tmpl=TMPL)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    videos = make_list(
        tmp_path / "l.txt", [("link", 4, 0), (str(tmp_path / "elsewhere"), 4, 0), ("../elsewhere", 4, 0)]
    )
    clips = TSNDataSet(tmp_path / "root", videos, image_tmpl=TMPL, num_segments=2, random_shift=False)
    assert torch.equal(clips[0][0], clips[1][0]) and torch.equal(clips[0][0], clips[2][0])


# --- which videos ----------------------------------------------------------------------------------------------------


def test_short_videos_are_dropped_in_training_only(tmp_path):
    lines = [("a", 2, 0), ("b", 3, 1), ("c", 0, 0), ("d", 40, 1)]
    list_file = make_list(tmp_path / "l.txt", lines)
    for options in ({}, {"random_shift": False}, {"test_mode": True, "remove_missing": True}):
        kept = TSNDataSet(tmp_path, list_file, **options).video_list
        assert [(r.path, r.line_number) for r in kept] == [("b", 2), ("d", 4)]
    assert [r.path for r in TSNDataSet(tmp_path, list_file, test_mode=True).video_list] == ["a", "b", "c", "d"]
    assert [r.path for r in TSNDataSet(tmp_path, list_file, test_mode=True, max_num=3).video_list] == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"l.txt:3: num_frames must be 1 or more, got 0"):
        TSNDataSet(tmp_path, list_file, test_mode=True)[2]
    short = make_list(tmp_path / "s.txt", lines[:1])
    with pytest.raises(InputError, match="every video of 1 has under 3 frames"):
        TSNDataSet(tmp_path, short)


def test_something_v1_flow_lists_count_twice(tmp_path):
    tmpl = "{:06d}-{}_{:05d}.png"
    frames = make_frame_folder(tmp_path / "78", 6, tmpl=tmpl)
    assert (tmp_path / "78" / "000078-x_00001.png").is_file()
    list_file = make_list(tmp_path / "l.txt", [("78", 12, 4)])
    videos = TSNDataSet(tmp_path, list_file, 1, 5, "Flow", tmpl, test_mode=True)
    assert videos.video_list[0].num_frames == 6
    clip, label = videos[0]
    assert label == 4
    assert torch.equal(clip, planes(frames[..., :2], [1, 2, 3, 4, 5]))  # tick = 2: starts at 1
    assert check_record(videos, videos.video_list[0]) is None


def test_flow_of_something_v1_may_lie_in_folders_of_six_digits(tmp_path):
    """The published program looks there, while its lists say `78`."""
    tmpl = "{:06d}-{}_{:05d}.png"
    frames = make_frame_folder(tmp_path / "000078", 6, tmpl=tmpl)
    list_file = make_list(tmp_path / "l.txt", [("78", 12, 4)])
    videos = TSNDataSet(tmp_path, list_file, 1, 5, "Flow", tmpl, test_mode=True)
    assert torch.equal(videos[0][0], planes(frames[..., :2], [1, 2, 3, 4, 5]))
    assert check_record(videos, videos.video_list[0]) is None
    videos = TSNDataSet(tmp_path, make_list(tmp_path / "m.txt", [("79", 12, 4)]), 1, 5, "Flow", tmpl, test_mode=True)
    with pytest.raises(InputError, match=r"m.txt:1: .*79"):
        videos[0]


# --- clips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torchvision", "pillow"])
def test_rgb_clip_is_the_sampled_frames(data, backend):
    frames = data[2]
    for i, count in enumerate((12, 5)):
        clip, label = dataset(data, test_mode=True, image_backend=backend)[i]
        assert clip.dtype == torch.uint8
        assert label == (1, 0)[i]
        assert torch.equal(clip, planes(frames[i], sampling.test_indices(count, 4)))


def test_train_clip_follows_the_draws(data):
    videos = dataset(data, seed=7)
    rng = np.random.RandomState([7, 3, 0])
    drawn = sampling.train_indices(12, 4, rng=rng)
    assert torch.equal(videos[(0, 3)][0], planes(data[2][0], drawn))
    clips = [videos[(0, epoch)][0] for epoch in range(6)]
    assert any(not torch.equal(clips[0], clip) for clip in clips[1:])
    assert all(torch.equal(videos[(0, epoch)][0], clips[epoch]) for epoch in reversed(range(6)))
    for seed in range(3):  # without an epoch, from numpy's global state: anew each time
        np.random.seed(seed)
        drawn = sampling.train_indices(12, 4, rng=np.random.RandomState(seed))
        assert torch.equal(videos[0][0], planes(data[2][0], drawn))


def test_validation_does_not_change_with_the_epoch(data):
    root, _, _ = data
    frames = make_frame_folder(root / "long", 100, size=(8, 8), tmpl=TMPL)
    list_file = make_list(root / "long.txt", [("long", 100, 0)])
    videos = TSNDataSet(root, list_file, 8, image_tmpl=TMPL, random_shift=False, dense_sample=True, seed=3)
    start = np.random.RandomState([3, 0, 0]).randint(0, 36)
    expected = planes(frames, [(start + 8 * k) % 100 for k in range(8)])
    assert all(torch.equal(videos[(0, epoch)][0], expected) for epoch in range(3))


def test_flow_clip_interleaves_x_and_y(data, tmp_path):
    root, list_file, frames = data
    packed = tmp_path / "packed"
    make_packed_flow(root, packed)
    for folder, tmpl in ((root, FLOW_TMPL), (packed, TMPL)):  # a file an axis; packed as (x, y, 0)
        videos = dataset((folder, list_file, frames), modality="Flow", new_length=5, image_tmpl=tmpl, test_mode=True)
        clip, _ = videos[0]
        assert clip.shape == (4 * 5, 2, 30, 40)
        stacks = [s + j for s in sampling.test_indices(12, 4, 5) for j in range(5)]
        assert torch.equal(clip, planes(frames[0][..., :2], stacks))


def test_flow_stack_repeats_the_last_frame(data):
    clip, _ = dataset(data, modality="Flow", new_length=8, image_tmpl=FLOW_TMPL, test_mode=True)[1]  # 5 frames
    assert torch.equal(clip, planes(data[2][1][..., :2], [0, 1, 2, 3, 4, 4, 4, 4] * 4))


def test_rgbdiff_reads_one_frame_more(data):
    videos = dataset(data, modality="RGBDiff", new_length=5, test_mode=True)
    assert videos.new_length == 6
    stacks = [s + j for s in sampling.test_indices(12, 4, 6) for j in range(6)]
    assert torch.equal(videos[0][0], planes(data[2][0], stacks))


def test_reverse_plays_backwards(data):
    backwards = [11 - i for i in sampling.test_indices(12, 4)]
    assert torch.equal(dataset(data, test_mode=True, reverse=True)[0][0], planes(data[2][0], backwards))
    clip, _ = dataset(data, modality="Flow", new_length=5, image_tmpl=FLOW_TMPL, test_mode=True, reverse=True)[0]
    stacks = [11 - s - j for s in sampling.test_indices(12, 4, 5) for j in range(5)]
    assert torch.equal(clip, 255 - planes(data[2][0][..., :2], stacks))


def test_two_and_ten_clips_lie_one_after_the_other(data):
    for name, num_clips in (("twice", 2), ("dense", 10)):
        clip, _ = dataset(data, test_mode=True, **{f"{name}_sample": True})[0]
        assert clip.shape[0] == num_clips * 4
        assert torch.equal(clip, planes(data[2][0], sampling.test_indices(12, 4, **{name: True})))


def test_crops_are_outermost_and_frames_are_decoded_once(data):
    seen = []

    class Source:
        def read(self, indices):
            seen.append(list(indices))
            return [torch.full((3, 2, 2), int(i), dtype=torch.uint8) for i in indices]

    def two_crops(frames, rng):
        clip = torch.stack(frames)
        return torch.stack((clip, clip + 100))  # (crops, F', C, H, W)

    clip = load_clip(Source(), np.array([5, 2, 5, 9]), two_crops, np.random.RandomState(0))
    assert seen == [[2, 5, 9]]
    assert clip.shape == (2 * 4, 3, 2, 2)
    assert clip[:, :, 0, 0].flatten().tolist() == [v for crop in (0, 100) for i in (5, 2, 5, 9) for v in [i + crop] * 3]


@pytest.mark.parametrize("options", [{}, {"test_mode": True, "dense_sample": True}, {"reverse": True}])
@pytest.mark.parametrize("backend", ["torchvision", "pillow"])
def test_pixels_stay_together_in_memory(data, options, backend):
    """No step transposes (F, H, W, C): that would cost a tenth of the decoding."""
    clip, _ = dataset(data, image_backend=backend, **options)[0]
    assert clip.is_contiguous(memory_format=torch.channels_last)


def test_transform_sees_the_rng_after_the_sampling_draws(data):
    drawn = []

    def transform(frames, rng):
        drawn.append(rng.randint(1 << 30))
        return torch.stack(frames)

    dataset(data, transform=ClipTransform([transform]), seed=1)[(1, 2)]
    rng = np.random.RandomState([1, 2, 1])
    sampling.train_indices(5, 4, rng=rng)
    assert drawn == [rng.randint(1 << 30)]


def test_any_other_transform_gets_pillow_images_in_clip_order(data):
    options = {"test_mode": True, "twice_sample": True}
    images, label = dataset(data, transform=lambda images: images, **options)[1]
    indices = sampling.test_indices(5, 4, twice=True)
    assert label == 0
    assert [image.mode for image in images] == ["RGB"] * 8
    assert all(np.array_equal(image, data[2][1][i]) for image, i in zip(images, indices, strict=True))

    flow = {"modality": "Flow", "new_length": 5, "image_tmpl": FLOW_TMPL, "random_shift": False}
    images, _ = dataset(data, transform=tuple, **flow)[0]
    stacks = [s + j for s in sampling.val_indices(12, 4, 5) for j in range(5)]
    expected = [data[2][0][i, :, :, axis] for i in stacks for axis in (0, 1)]  # x, y, x, y
    assert [image.mode for image in images] == ["L"] * 40
    assert all(np.array_equal(image, plane) for image, plane in zip(images, expected, strict=True))


def test_what_only_our_transforms_do_is_refused_to_others(data):
    for options in ({"image_backend": "torchvision"}, {"modality": "Flow", "reverse": True}):
        with pytest.raises(InputError, match=r"only an ops\.transforms\.ClipTransform"):
            dataset(data, transform=list, **options)


@pytest.mark.parametrize(("modality", "arch"), [("RGB", "resnet18"), ("RGB", "BNInception"), ("Flow", "BNInception")])
@pytest.mark.parametrize("num_crops", [1, 3, 10])
def test_the_published_pipeline_gives_our_own_values(data, modality, arch, num_crops):
    row, pair = backbone_row(arch).normalization(modality), {"test_mode": True, "modality": modality}
    if modality == "Flow":
        pair |= {"new_length": 5, "image_tmpl": FLOW_TMPL}
    crops = {
        1: [GroupScale(20), GroupCenterCrop(16)],
        3: [GroupFullResSample(16, 20, flip=False)],
        10: [GroupOverSample(16, 20)],
    }[num_crops]
    published = [*crops, Stack(roll=row["bgr"]), ToTorchFormatTensor(div=row["div255"])]
    published = torchvision.transforms.Compose([*published, GroupNormalize(row["mean"], row["std"])])
    theirs, _ = dataset(data, transform=published, **pair)[0]
    clip, _ = dataset(data, transform=make_test_transform(16, 20, num_crops), image_backend="pillow", **pair)[0]
    ours = ClipNormalize(**row)(clip[None])[0]
    assert ours.shape == theirs.shape == (num_crops * 4 * (10 if modality == "Flow" else 3), 16, 16)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


def test_hostile_names_are_only_names(tmp_path):
    name = 'it\'s "odd" $(touch pwned) `x` ; 1'
    frames = make_frame_folder(tmp_path / name, 6, tmpl=TMPL)
    list_file = make_list(tmp_path / "l.txt", [(name, 6, 0)])
    clip, _ = TSNDataSet(tmp_path, list_file, 3, image_tmpl=TMPL, test_mode=True)[0]
    assert torch.equal(clip, planes(frames, [1, 3, 5]))
    assert not (tmp_path / "pwned").exists()


# --- video files -----------------------------------------------------------------------------------------------------


def test_video_files_by_either_name(tmp_path):
    frames = make_frames(12, size=(64, 48))
    make_video(tmp_path / "class x" / "v.1.mp4", frames)
    list_file = make_list(tmp_path / "l.txt", [("class x/v.1", 12, 0), ("class x/v.1.mp4", 12, 0), ("none", 12, 0)])
    videos = TSNDataSet(tmp_path, list_file, 4, test_mode=True, io="video")
    clip, _ = videos[0]
    assert clip.shape == (4, 3, 48, 64)
    assert torch.equal(clip, videos[1][0])
    expected = planes(frames, sampling.test_indices(12, 4))
    assert (clip.int() - expected.int()).abs().float().mean() < 4  # lossy, but these frames: 20 apart on average
    with pytest.raises(InputError, match=r"l.txt:3: .*none: no such video file, nor with an extension such as .mp4"):
        videos[2]
    assert find_video_file(str(tmp_path / "class x" / "v.1")).endswith("v.1.mp4")


def test_video_shorter_than_listed_is_an_error(tmp_path):
    make_video(tmp_path / "v.mp4", make_frames(6, size=(64, 48)))
    list_file = make_list(tmp_path / "l.txt", [("v", 30, 0)])
    with pytest.raises(InputError, match=r"l.txt:1: .*v.mp4"):
        TSNDataSet(tmp_path, list_file, 4, test_mode=True, io="video")[0]


# --- samples that cannot be read -------------------------------------------------------------------------------------


def test_missing_frame_names_file_and_line(tmp_path):
    for name in ("a", "b"):
        make_frame_folder(tmp_path / name, 8)
    (tmp_path / "b" / "img_00004.jpg").unlink()
    list_file = make_list(tmp_path / "l.txt", [("a", 8, 0), ("b", 8, 1), ("c", 8, 1)])
    videos = TSNDataSet(tmp_path, list_file, 8, random_shift=False, test_mode=True)
    videos[0]
    with pytest.raises(InputError, match=r"l.txt:2: .*b/img_00004.jpg"):
        videos[1]
    with pytest.raises(InputError, match=r"l.txt:3: .*c/img_00001.jpg"):
        videos[2]


def test_cut_frame_names_file_and_line(tmp_path):
    make_frame_folder(tmp_path / "a", 4, size=(200, 150))
    frame = tmp_path / "a" / "img_00003.jpg"
    frame.write_bytes(frame.read_bytes()[: frame.stat().st_size // 2])
    list_file = make_list(tmp_path / "l.txt", [("a", 4, 0)])
    for backend in ("torchvision", "pillow"):
        videos = TSNDataSet(tmp_path, list_file, 4, test_mode=True, image_backend=backend)
        with pytest.raises(InputError, match=r"l.txt:1: .*img_00003.jpg"):
            videos[0]


def test_bad_options(tmp_path):
    list_file = make_list(tmp_path / "l.txt", [("a", 4, 0)])
    for options, match in (
        ({"modality": "Depth"}, "unknown modality"),
        ({"io": "tape"}, "unknown --io 'tape'"),
        ({"io": "video", "modality": "Flow"}, "no Flow"),
        ({"dense_sample": True, "twice_sample": True}, "exclude each other"),
        ({"num_segments": 0}, "num_segments must be 1 or more"),
        ({"new_length": 0}, "new_length must be 1 or more"),
        ({"image_backend": "magick"}, "magick"),
        ({"image_tmpl": "frame.jpg"}, "frame.jpg"),
        ({"num_class": 0}, "label 0 is out of range"),
    ):
        with pytest.raises(InputError, match=match):
            TSNDataSet(tmp_path, list_file, **options)
    with pytest.raises(InputError, match="none is not there: give --root_path"):
        TSNDataSet(tmp_path / "none", list_file)


# --- the check before a long run -------------------------------------------------------------------------------------


def test_quick_check(tmp_path):
    lines = []
    for i in range(5):
        make_frame_folder(tmp_path / f"v{i}", 4, size=(8, 8))
        lines.append((f"v{i}", 4, 0))
    list_file = make_list(tmp_path / "l.txt", lines)
    videos = TSNDataSet(tmp_path, list_file)
    quick_check(videos)
    quick_check(videos, samples=1)

    shutil.copy(tmp_path / "v3" / "img_00004.jpg", tmp_path / "v3" / "img_00005.jpg")
    quick_check(videos)  # lists may count less than there is
    (tmp_path / "v1" / "img_00004.jpg").unlink()
    with pytest.raises(
        InputError, match=r"l.txt:2: 4 frames are listed, .*img_00004.jpg is not there \(1 wrong of 5 videos"
    ):
        quick_check(videos)
    shutil.rmtree(tmp_path / "v0")
    with pytest.raises(InputError, match=r"l.txt:1: folder .*v0 is not there .*check_dataset"):
        quick_check(videos)
    quick_check(TSNDataSet(tmp_path, make_list(tmp_path / "m.txt", lines[2:3])))


def test_quick_check_of_videos(tmp_path):
    make_video(tmp_path / "a.mp4", make_frames(4, size=(64, 48)))
    (tmp_path / "b.mp4").write_bytes(b"")
    good, bad = (make_list(tmp_path / f"{n}.txt", [(n, 4, 0)]) for n in "ab")
    quick_check(TSNDataSet(tmp_path, good, io="video"))
    with pytest.raises(InputError, match=r"b.txt:1: .*b.mp4 is empty"):
        quick_check(TSNDataSet(tmp_path, bad, io="video"))
