"""Stack, ToTorchFormatTensor, GroupNormalize: the published arithmetic, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ops.common.errors import InputError
from ops.network.normalize import GroupNormalize, IdentityTransform, Stack, ToTorchFormatTensor


def arrays(num_frames: int, channels: int = 3) -> list[np.ndarray]:
    """Uint8 (H, W, C), or (H, W) for one channel."""
    shape = (5, 7, channels) if channels > 1 else (5, 7)
    return [np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8) for seed in range(num_frames)]


@pytest.mark.parametrize("roll", [False, True])
def test_stack_lays_all_channels_side_by_side(roll: bool) -> None:
    frames = arrays(3)
    stacked = Stack(roll=roll)([Image.fromarray(frame) for frame in frames])
    expected = np.concatenate([frame[:, :, ::-1] if roll else frame for frame in frames], axis=2)
    assert stacked.dtype == np.uint8 and np.array_equal(stacked, expected)

    flow = arrays(4, channels=1)
    stacked = Stack(roll=roll)([Image.fromarray(axis) for axis in flow])
    assert np.array_equal(stacked, np.stack(flow, axis=2))


@pytest.mark.parametrize("div", [True, False])
def test_arrays_and_images_become_float_tensors(div: bool) -> None:
    array = arrays(1)[0]
    expected = array.transpose(2, 0, 1).astype(np.float32)
    expected = expected / np.float32(255) if div else expected
    for pic in (array, Image.fromarray(array)):
        tensor = ToTorchFormatTensor(div=div)(pic)
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), expected)
    gray = arrays(1, channels=1)[0]
    assert np.array_equal(ToTorchFormatTensor(div=False)(Image.fromarray(gray)).numpy(), gray[None])


@pytest.mark.parametrize(
    ("mean", "std"), [([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), ([104, 117, 128], [1]), ([0.5], [0.226])]
)
def test_normalisation_repeats_over_the_channels(mean: list[float], std: list[float]) -> None:
    tensor = ToTorchFormatTensor(div=mean[0] < 1)(Stack()([Image.fromarray(frame) for frame in arrays(2)]))
    expected = tensor.numpy().copy()
    for channel in range(6):
        expected[channel] = (expected[channel] - np.float32(mean[channel % len(mean)])) / np.float32(
            std[channel % len(std)]
        )
    assert IdentityTransform()(tensor) is tensor
    normalized = GroupNormalize(mean, std)(tensor)
    assert normalized is tensor  # in place, as published
    assert np.array_equal(normalized.numpy(), expected)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="3 mean or std values for a tensor of 10 channels"):
        GroupNormalize([0.5] * 3, [1.0] * 3)(torch.zeros(10, 2, 2))
