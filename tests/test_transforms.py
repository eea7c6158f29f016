"""Group transforms: the published rules in their plainest form, Pillow bit for bit, torchvision within a level."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode

from ops.common.errors import InputError
from ops.data import frame_ops
from ops.data.frame_ops import to_clip
from ops.transforms import (
    CORNER_GRID,
    ClipNormalize,
    ClipTransform,
    GroupCenterCrop,
    GroupFullResSample,
    GroupMultiScaleCrop,
    GroupOverSample,
    GroupRandomCrop,
    GroupRandomHorizontalFlip,
    GroupScale,
    fixed_offsets,
    train_transform,
    val_transform,
)
from ops.transforms import test_transform as make_test_transform

BACKENDS = ("torchvision", "pillow")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def photo_like(rng: np.random.RandomState, width: int, height: int) -> np.ndarray:
    """Blobs, edges and noise, uint8 (height, width, 3)."""
    coarse = Image.fromarray(rng.randint(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    fine = rng.randint(-40, 41, (height, width, 3))
    return np.clip(np.asarray(coarse).astype(int) + fine, 0, 255).astype(np.uint8)


def make_arrays(num_frames: int, width: int, height: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.RandomState(seed)
    return [photo_like(rng, width, height) for _ in range(num_frames)]


def as_frames(arrays: list[np.ndarray], backend: str):
    """RGB frames as transforms take them."""
    if backend == "pillow":
        return [Image.fromarray(array) for array in arrays]
    return [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]


def as_flow(arrays: list[np.ndarray], backend: str):
    """Flow frames: the red channel is x, the green one is y."""
    if backend == "pillow":
        return [Image.fromarray(array[:, :, axis].copy()) for array in arrays for axis in (0, 1)]
    return [torch.from_numpy(array[:, :, :2].copy()).permute(2, 0, 1) for array in arrays]


def chw(images: list[Image.Image]) -> np.ndarray:
    """Pillow images -> (T, C, H, W)."""
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


def assert_as_pillow(actual: torch.Tensor, expected: np.ndarray, backend: str, *, resized: bool = True) -> None:
    """pillow: equal. torchvision: one level apart at most where resized, but for one value in a million."""
    assert actual.dtype == torch.uint8
    assert tuple(actual.shape) == expected.shape
    difference = np.abs(actual.numpy().astype(int) - expected.astype(int))
    if backend == "pillow" or not resized:
        assert difference.max() == 0
    else:
        assert difference.max() <= 2
        assert (difference > 1).sum() <= 1


class Scripted:
    """An rng that gives the asked-for integers in turn, and checks what it is asked."""

    def __init__(self, answers: list[int], flip: float = 0.0) -> None:
        self.answers, self.bounds, self.flip = list(answers), [], flip

    def randint(self, bound: int) -> int:
        self.bounds.append(bound)
        return self.answers.pop(0)

    def random_sample(self) -> float:
        return self.flip


# --- multi-scale crop -------------------------------------------------------------------------------------------------


def test_crop_sizes_of_a_kinetics_frame() -> None:
    # 340 x 256: int(256 * s) = 256, 224, 192, 168; neighbours may mix.
    sides = [256, 224, 192, 168]
    crop = GroupMultiScaleCrop(224, [1, 0.875, 0.75, 0.66])
    expected = [(sides[j], sides[i]) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    assert crop.crop_sizes(340, 256) == expected
    assert len(expected) == 10


@pytest.mark.parametrize(
    "short, sides",
    [
        (226, [224, 197, 169]),  # 226 - 224 = 2 < 3: snaps
        (227, [227, 198, 170]),  # 3: does not
        (222, [224, 194, 166]),  # 222 - 224 = -2: snaps, although larger than the image
        (221, [221, 193, 165]),
        (257, [257, 224, 192]),  # int(224.875) = 224
        (258, [258, 224, 193]),  # int(225.75) = 225, snaps
    ],
)
def test_sides_near_the_input_size_snap_to_it(short: int, sides: list[int]) -> None:
    crop = GroupMultiScaleCrop(224, [1, 0.875, 0.75])
    assert sorted({size[0] for size in crop.crop_sizes(400, short)}, reverse=True) == sides


def test_a_default_multi_scale_crop_has_the_four_rgb_scales() -> None:
    assert GroupMultiScaleCrop(224).scales == [1, 0.875, 0.75, 0.66]
    assert train_transform(224, "RGB").transforms[0].scales == [1, 0.875, 0.75, 0.66]
    for modality in ("Flow", "RGBDiff"):
        assert train_transform(224, modality).transforms[0].scales == [1, 0.875, 0.75]


def test_max_distort_limits_the_pairs() -> None:
    assert len(GroupMultiScaleCrop(224, [1, 0.875, 0.75], max_distort=0).crop_sizes(340, 256)) == 3
    assert len(GroupMultiScaleCrop(224, [1, 0.875, 0.75], max_distort=2).crop_sizes(340, 256)) == 9


def test_the_thirteen_offsets_in_published_order() -> None:
    w, h = (340 - 224) // 4, (256 - 192) // 4
    expected = {
        "upper left": (0, 0),
        "upper right": (4 * w, 0),
        "lower left": (0, 4 * h),
        "lower right": (4 * w, 4 * h),
        "centre": (2 * w, 2 * h),
        "centre left": (0, 2 * h),
        "centre right": (4 * w, 2 * h),
        "lower centre": (2 * w, 4 * h),
        "upper centre": (2 * w, 0),
        "upper left quarter": (1 * w, 1 * h),
        "upper right quarter": (3 * w, 1 * h),
        "lower left quarter": (1 * w, 3 * h),
        "lower right quarter": (3 * w, 3 * h),
    }
    assert fixed_offsets(340, 256, 224, 192) == list(expected.values())
    assert fixed_offsets(340, 256, 224, 192, CORNER_GRID) == list(expected.values())[:5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_crop_at_every_place_is_pillows(backend: str) -> None:
    arrays = make_arrays(2, 170, 128)
    crop = GroupMultiScaleCrop(112, [1, 0.875, 0.75, 0.66])
    pairs = crop.crop_sizes(170, 128)
    for pair, place in itertools.product(range(len(pairs)), range(13)):
        rng = Scripted([pair, place])
        width, height = pairs[pair]
        left, top = fixed_offsets(170, 128, width, height)[place]
        expected = [
            Image.fromarray(array).crop((left, top, left + width, top + height)).resize((112, 112), Image.BILINEAR)
            for array in arrays
        ]
        clip = to_clip(crop(as_frames(arrays, backend), rng))
        assert rng.bounds == [len(pairs), 13]
        assert_as_pillow(clip, chw(expected), backend, resized=(width, height) != (112, 112))


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_pipeline_on_random_sizes(backend: str) -> None:
    sizes = np.random.RandomState(3)
    for seed in range(25):
        width, height = sizes.randint(20, 300, 2)
        arrays = make_arrays(3, width, height, seed)
        size = int(sizes.choice([32, 64, 112]))
        clip = train_transform(size)(as_frames(arrays, backend), np.random.RandomState(seed))

        # The same choices, spelled out.
        rng = np.random.RandomState(seed)
        sides = [int(min(width, height) * scale) for scale in (1, 0.875, 0.75, 0.66)]
        sides = [size if abs(side - size) < 3 else side for side in sides]
        pairs = [(sides[j], sides[i]) for i in range(4) for j in range(4) if abs(i - j) <= 1]
        w, h = pairs[rng.randint(len(pairs))]
        left, top = fixed_offsets(width, height, w, h)[rng.randint(13)]
        images = [
            Image.fromarray(array).crop((left, top, left + w, top + h)).resize((size, size), Image.BILINEAR)
            for array in arrays
        ]
        if rng.random_sample() < 0.5:
            images = [image.transpose(Image.FLIP_LEFT_RIGHT) for image in images]
        assert_as_pillow(clip, chw(images), backend)


@pytest.mark.parametrize("is_flow", [False, True])
def test_rounding_ties_along_both_axes_do_not_add_up(is_flow: bool) -> None:
    # 48 -> 56 is 6 : 7: an eleventh of the values are ties. PyTorch's kernel alone is two levels off in this clip.
    arrays = make_arrays(40, 48, 48)
    crop = GroupMultiScaleCrop(56, [1])
    make = as_flow if is_flow else as_frames
    ours, pillow = (to_clip(crop(make(arrays, backend), Scripted([0, 0]))) for backend in BACKENDS)
    assert (ours.int() - pillow.int()).abs().max() == 1
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("count", "width"), [(1, 7), (2, 5), (2, 4), (3, 16)])
def test_rows_are_resized_as_pillow_resizes_each_frame(count: int, width: int) -> None:
    arrays = make_arrays(count, width, 12)
    frames = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    expected = chw([Image.fromarray(array).resize((width, 14), Image.BILINEAR) for array in arrays])
    assert np.array_equal(frame_ops._resize_rows_as_pillow(frames, 14), expected)


def test_photos_at_the_published_sizes_are_one_level_apart_at_most() -> None:
    arrays = make_arrays(2, 340, 256)
    for width, height in ((256, 256), (256, 224), (224, 192), (192, 192), (192, 168), (168, 168)):
        crop = GroupMultiScaleCrop(224, [1])
        crop.crop_sizes = lambda *_, pair=(width, height): [pair]
        ours = to_clip(crop(as_frames(arrays, "torchvision"), Scripted([0, 4])))
        pillow = to_clip(crop(as_frames(arrays, "pillow"), Scripted([0, 4])))
        assert (ours.int() - pillow.int()).abs().max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crop_that_snapped_beyond_the_image_is_padded_with_black(backend: str) -> None:
    arrays = make_arrays(1, 30, 22)
    crop = GroupMultiScaleCrop(24, [1])
    assert crop.crop_sizes(30, 22) == [(24, 24)]
    for place, (left, top) in enumerate(fixed_offsets(30, 22, 24, 24)):
        expected = Image.fromarray(arrays[0]).crop((left, top, left + 24, top + 24))
        clip = to_clip(crop(as_frames(arrays, backend), Scripted([0, place])))
        assert_as_pillow(clip, chw([expected]), backend, resized=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_composed_transforms_take_frames_alone(backend: str) -> None:
    frames = as_frames(make_arrays(2, 80, 60), backend)
    transform = train_transform(32)
    random.seed(5)
    alone = transform(frames)
    random.seed(5)
    assert torch.equal(alone, transform(frames))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_frames_still_give_a_clip(backend: str) -> None:
    clip = train_transform(8)(as_frames(make_arrays(2, 1, 1), backend), np.random.RandomState(0))
    assert clip.shape == (2, 3, 8, 8)


def test_without_an_rng_pythons_random_draws_as_published() -> None:
    """random.choice of a size, random.choice of a place, random.random for the flip; randint(0, n) for free crops."""
    arrays = make_arrays(1, 90, 60)
    image, frames = Image.fromarray(arrays[0]), as_frames(arrays, "pillow")
    for seed in range(10):
        random.seed(seed)
        clip = train_transform(32)(frames)
        random.seed(seed)
        width, height = random.choice(GroupMultiScaleCrop(32).crop_sizes(90, 60))
        left, top = random.choice(fixed_offsets(90, 60, width, height))
        expected = image.crop((left, top, left + width, top + height)).resize((32, 32), Image.BILINEAR)
        if random.random() < 0.5:
            expected = ImageOps.mirror(expected)
        assert_as_pillow(clip, chw([expected]), "pillow")

        random.seed(seed)
        clip = to_clip(GroupRandomCrop(20)(frames))
        random.seed(seed)
        left, top = random.randint(0, 90 - 20), random.randint(0, 60 - 20)
        assert_as_pillow(clip, chw([image.crop((left, top, left + 20, top + 20))]), "pillow")


def test_published_scripts_find_their_names() -> None:
    names: dict[str, object] = {}
    exec("from ops.transforms import *", names)
    assert names["np"] is np and names["torch"] is torch and names["torchvision"] is torchvision
    assert {"Stack", "ToTorchFormatTensor", "GroupNormalize", "IdentityTransform"} <= names.keys()
    assert "Compose" not in names  # torchvision's, which scripts import before


def test_free_crop_reaches_every_place() -> None:
    rng = np.random.RandomState(0)
    ramp = np.tile(np.arange(12, dtype=np.uint8)[None, :, None], (10, 1, 3))
    crop = GroupMultiScaleCrop(10, [1], fix_crop=False)
    assert {int(to_clip(crop(as_frames([ramp], "torchvision"), rng))[0, 0, 0, 0]) for _ in range(60)} == {0, 1, 2}


# --- scale, crops, flips ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "width, height, size, expected",
    [
        (340, 256, 256, (340, 256)),
        (320, 240, 256, (341, 256)),  # int(256 * 320 / 240) = int(341.33)
        (240, 320, 256, (256, 341)),
        (100, 176, 64, (64, 112)),  # int(112.64)
        (50, 50, 64, (64, 64)),
    ],
)
def test_scale_sets_the_short_side(backend: str, width: int, height: int, size: int, expected: tuple[int, int]) -> None:
    arrays = make_arrays(2, width, height)
    clip = to_clip(GroupScale(size)(as_frames(arrays, backend)))
    images = [Image.fromarray(array).resize(expected, Image.BILINEAR) for array in arrays]
    assert_as_pillow(clip, chw(images), backend)


@pytest.mark.parametrize("name", ["NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS"])
def test_scale_to_both_sides_with_any_filter(name: str) -> None:
    arrays = make_arrays(2, 90, 60)
    expected = chw([Image.fromarray(array).resize((40, 30), Image.Resampling[name]) for array in arrays])
    for interpolation in (Image.Resampling[name], int(Image.Resampling[name]), InterpolationMode[name]):
        clip = to_clip(GroupScale([40, 30], interpolation)(as_frames(arrays, "pillow")))
        assert_as_pillow(clip, expected, "pillow")
    if name == "BILINEAR":
        assert_as_pillow(to_clip(GroupScale((40, 30))(as_frames(arrays, "torchvision"))), expected, "torchvision")
    else:
        with pytest.raises(InputError, match=f"{name} resizing takes Pillow images"):
            GroupScale(30, interpolation)(as_frames(arrays, "torchvision"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width, height", [(17, 12), (18, 13), (19, 14), (20, 15), (8, 30), (5, 6), (7, 7)])
def test_centre_crop_rounds_half_to_even_and_pads(backend: str, width: int, height: int) -> None:
    arrays = make_arrays(1, width, height)
    for size in (10, (9, 11)):  # (height, width)
        expected = torchvision.transforms.CenterCrop(size)(Image.fromarray(arrays[0]))
        clip = to_clip(GroupCenterCrop(size)(as_frames(arrays, backend)))
        assert_as_pillow(clip, chw([expected]), backend, resized=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_validation_is_scale_then_centre_crop(backend: str) -> None:
    arrays = make_arrays(2, 170, 120)
    images = [Image.fromarray(array).resize((int(64 * 170 / 120), 64), Image.BILINEAR) for array in arrays]
    left = round((images[0].width - 56) / 2)
    expected = [image.crop((left, 4, left + 56, 60)) for image in images]
    assert_as_pillow(val_transform(56, 64)(as_frames(arrays, backend)), chw(expected), backend)
    assert_as_pillow(make_test_transform(56, 64, 1)(as_frames(arrays, backend))[0], chw(expected), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_crops_are_left_right_centre(backend: str) -> None:
    arrays = make_arrays(2, 120, 64)
    w = (120 - 64) // 4
    clip = make_test_transform(64, 64, 3)(as_frames(arrays, backend))
    expected = [chw([Image.fromarray(a).crop((x, 0, x + 64, 64)) for a in arrays]) for x in (0, 4 * w, 2 * w)]
    assert_as_pillow(clip, np.stack(expected), backend, resized=False)
    assert len(GroupFullResSample(64, 64, flip=True)(as_frames(arrays, backend))) == 6 * 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_crops", [5, 10])
def test_corner_crops_and_their_flips(backend: str, num_crops: int) -> None:
    arrays = make_arrays(2, 90, 64)
    w, h = (90 - 48) // 4, (64 - 48) // 4
    expected = []
    for x, y in ((0, 0), (4 * w, 0), (0, 4 * h), (4 * w, 4 * h), (2 * w, 2 * h)):
        crops = [Image.fromarray(array).crop((x, y, x + 48, y + 48)) for array in arrays]
        expected.append(chw(crops))
        if num_crops == 10:
            expected.append(chw([ImageOps.mirror(crop) for crop in crops]))
    clip = make_test_transform(48, 64, num_crops)(as_frames(arrays, backend))
    assert_as_pillow(clip, np.stack(expected), backend, resized=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_flipped_flow_changes_the_sign_of_x_only(backend: str) -> None:
    arrays = make_arrays(2, 20, 10)
    clip = to_clip(GroupRandomHorizontalFlip(is_flow=True)(as_flow(arrays, backend), Scripted([], flip=0.49)))
    mirrored = np.stack(arrays)[:, :, ::-1]
    assert np.array_equal(clip[:, 0].numpy(), 255 - mirrored[..., 0])
    assert np.array_equal(clip[:, 1].numpy(), mirrored[..., 1])
    kept = to_clip(GroupRandomHorizontalFlip(is_flow=True)(as_flow(arrays, backend), Scripted([], flip=0.5)))
    assert np.array_equal(kept.numpy(), np.stack(arrays)[..., :2].transpose(0, 3, 1, 2))

    ten = GroupOverSample(10, None, flip=True)(as_flow(arrays, backend))
    ten = to_clip(ten).unflatten(0, (10, 2)).numpy()
    assert np.array_equal(ten[1::2, :, 0], 255 - ten[::2, :, 0, :, ::-1])
    assert np.array_equal(ten[1::2, :, 1], ten[::2, :, 1, :, ::-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_flow_goes_through_training_and_the_frames_are_left_alone(backend: str) -> None:
    arrays = make_arrays(3, 60, 44)
    frames = as_flow(arrays, backend)
    before = to_clip(frames).clone()
    for seed in range(4):
        clip = train_transform(32, "Flow")(frames, np.random.RandomState(seed))
        assert clip.shape == (3, 2, 32, 32)
    assert torch.equal(to_clip(frames), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_flips_happen_half_the_time_or_never(backend: str) -> None:
    arrays = make_arrays(1, 16, 16)
    rng = np.random.RandomState(0)
    flip = GroupRandomHorizontalFlip()
    straight = to_clip(as_frames(arrays, backend))
    flipped = sum(not torch.equal(to_clip(flip(as_frames(arrays, backend), rng)), straight) for _ in range(200))
    assert 75 < flipped < 125
    assert not any(isinstance(t, GroupRandomHorizontalFlip) for t in train_transform(16, flip=False).transforms)


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_crop(backend: str) -> None:
    arrays = make_arrays(1, 20, 16)
    rng = Scripted([3, 2])
    clip = to_clip(GroupRandomCrop((10, 12))(as_frames(arrays, backend), rng))
    assert rng.bounds == [20 - 12 + 1, 16 - 10 + 1]
    assert np.array_equal(clip[0].permute(1, 2, 0).numpy(), arrays[0][2:12, 3:15])
    with pytest.raises(InputError, match="24 x 24 does not fit into frames of 20 x 16"):
        GroupRandomCrop(24)(as_frames(arrays, backend), rng)


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_is_uint8_frames_in_channels_last_memory(backend: str) -> None:
    arrays = make_arrays(4, 50, 40)
    clip = ClipTransform([GroupCenterCrop(32)])(as_frames(arrays, backend))
    assert clip.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(clip.numpy(), np.stack(arrays)[:, 4:36, 9:41].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_of_different_size(backend: str) -> None:
    frames = as_frames(make_arrays(1, 50, 40) + make_arrays(1, 48, 44), backend)
    assert train_transform(16)(frames, np.random.RandomState(0)).shape == (2, 3, 16, 16)
    assert val_transform(16, 20)(frames).shape == (2, 3, 16, 16)
    with pytest.raises(InputError, match="differ in size"):
        to_clip(frames)
    with pytest.raises(InputError, match="x and y of flow in turn, but there are 3"):
        to_clip(as_flow(make_arrays(2, 8, 8), "pillow")[:3])
    with pytest.raises(InputError, match="without frames"):
        to_clip([])


def test_the_number_of_crops_is_checked() -> None:
    with pytest.raises(InputError, match="4 crops: choose 1, 3, 5 or 10"):
        make_test_transform(224, 256, 4)


# --- normalisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frames_shape", [(4, 3, 16, 9), (2, 3, 4, 1), (2, 3, 1, 4), (2, 3, 1, 1)])
@pytest.mark.parametrize("layout", ["flat", "frames", "clips of frames"])
def test_normalisation_is_the_published_arithmetic(channels_last: bool, frames_shape: tuple, layout: str) -> None:
    num_frames, _, height, width = frames_shape
    shapes = {
        "flat": (2, num_frames * 3, height, width),
        "frames": (2, *frames_shape),
        "clips of frames": (2, 2, num_frames // 2, 3, height, width),
    }
    frames = torch.arange(2 * num_frames * 3 * height * width).remainder(256).to(torch.uint8).view(2, *frames_shape)
    clip = ClipNormalize(**IMAGENET, channels_last=channels_last)(frames.reshape(shapes[layout]))
    mean, std = (torch.tensor(IMAGENET[name], dtype=torch.float64).view(3, 1, 1) for name in ("mean", "std"))
    expected = (frames.double() / 255 - mean) / std
    assert clip.dtype == torch.float32
    assert clip.shape == shapes["frames" if channels_last else "flat"]
    assert (clip.reshape(frames.shape) - expected).abs().max() < 1e-6
    if channels_last:
        assert clip.view(-1, 3, height, width).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalisation_leaves_a_float_clip_as_it_was(channels_last: bool) -> None:
    levels = torch.arange(2 * 12 * 5 * 7).remainder(256).float().reshape(2, 12, 5, 7)
    kept = levels.clone()
    normalize = ClipNormalize(**IMAGENET, channels_last=channels_last)
    assert torch.equal(normalize(levels), normalize(kept.to(torch.uint8)))
    assert torch.equal(levels, kept)


@pytest.mark.parametrize("memory", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_bninception_gets_bgr_from_0_to_255(memory: str, channels_last: bool) -> None:
    frames = torch.randint(0, 256, (2, 3, 3, 4, 4), dtype=torch.uint8)
    if memory == "channels_last":
        frames = frames.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    options = {"mean": [104, 117, 128], "std": [1, 1, 1], "div255": False, "bgr": True}
    clip = ClipNormalize(**options, channels_last=channels_last)(frames).reshape(2, 3, 3, 4, 4)
    expected = frames.float()[:, :, [2, 1, 0]] - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1)
    assert torch.equal(clip, expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_flow_and_differences(channels_last: bool) -> None:
    flow = torch.randint(0, 256, (2, 15, 2, 4, 4), dtype=torch.uint8)  # 3 segments of 5 (x, y)
    clip = ClipNormalize([0.5], [0.226], modality="Flow", bgr=True, channels_last=channels_last)(flow)
    assert clip.shape == ((2, 3, 10, 4, 4) if channels_last else (2, 30, 4, 4))
    expected = (flow.float() / 255 - 0.5) / 0.226
    assert torch.allclose(clip.reshape(flow.shape), expected, rtol=0, atol=1e-6)

    rgb = torch.randint(0, 256, (2, 12, 3, 4, 4), dtype=torch.uint8)  # 2 segments of 6 frames
    clip = ClipNormalize(**IMAGENET, modality="RGBDiff", channels=18, channels_last=channels_last)(rgb)
    assert torch.allclose(clip.reshape(rgb.shape), rgb.float() / 255, rtol=0, atol=1e-6)


def test_normalisation_refuses_what_does_not_divide() -> None:
    with pytest.raises(InputError, match="does not divide into 3 channels"):
        ClipNormalize(**IMAGENET)(torch.zeros(1, 4, 2, 2, dtype=torch.uint8))
    with pytest.raises(InputError, match="mean has 3 values for 10 channels"):
        ClipNormalize(**IMAGENET, modality="Flow")
