"""The frame moves of `shift_ops.move_frames_` as one Triton kernel: one launch a shift instead of one a frame and move.

Import this module only where `triton` imports. A lane owns one value of one clip through all of its frames, so lanes
never meet and the move needs no buffer: read frame t + 1, write frame t, and so on.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
# Values are moved as bits, so that no dtype changes them (NaN payloads, signed zeros).
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def _move_frames(
    x_ptr,
    fill_ptr,
    kept_ptr,
    lanes,
    frame_size,
    num_channels,
    pixels,
    first_fold,
    num_moved,
    T: tl.constexpr,
    FIRST_STEP: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    FILL: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # 64-bit from here on: a batch may hold more than 2^31 values, a frame does not.
    clip = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < lanes
    if CHANNELS_LAST:
        channel = lane % num_moved
        place = (lane // num_moved) * num_channels + channel
    else:
        channel = lane // pixels
        place = lane  # The moved channels come first in a frame.
    # Channels [0, first_fold) take frame t + FIRST_STEP, the others frame t - FIRST_STEP.
    step = tl.where(channel < first_fold, FIRST_STEP, -FIRST_STEP).to(tl.int64) * frame_size
    start = clip * T * frame_size + place
    target = tl.where(step > 0, start, start - (T - 1) * step)
    value = tl.load(x_ptr + target, mask=mask)
    if KEEP:
        tl.store(kept_ptr + clip * lanes + lane, value, mask=mask)
    for _ in range(T - 1):
        source = target + step
        value = tl.load(x_ptr + source, mask=mask)
        tl.store(x_ptr + target, value, mask=mask)
        target = source
    if FILL:
        value = tl.load(fill_ptr + clip * lanes + lane, mask=mask)
    else:
        value = tl.zeros_like(value)
    tl.store(x_ptr + target, value, mask=mask)


def move_frames_(
    x: Tensor,
    n_segment: int,
    moves: tuple[tuple[int, int, int], ...],
    *,
    fill: list[Tensor] | None = None,
    keep: bool = False,
) -> list[Tensor] | None:
    """`shift_ops.move_frames_` for an (N*T, C, H, W) tensor that is contiguous or channels_last.

    `moves` starts at channel 0 and has one entry, or two that follow each other in opposite directions. What is kept
    is one flat tensor in this kernel's own order.
    """
    num_frames, num_channels, height, width = x.shape
    clips, pixels, num_moved = num_frames // n_segment, height * width, moves[-1][1]
    lanes = pixels * num_moved
    if clips * lanes == 0:
        return [] if keep else None
    bits = x.view(_BITS[x.element_size()])
    kept = torch.empty(clips * lanes if keep else 0, dtype=bits.dtype, device=x.device)
    with torch.cuda.device_of(x):
        _move_frames[(clips, triton.cdiv(lanes, BLOCK))](
            bits,
            fill[0] if fill else bits,
            kept if keep else bits,
            lanes,
            num_channels * pixels,
            num_channels,
            pixels,
            moves[0][1],
            num_moved,
            T=n_segment,
            FIRST_STEP=moves[0][2],
            CHANNELS_LAST=not x.is_contiguous(),
            FILL=fill is not None,
            KEEP=keep,
            BLOCK=BLOCK,
        )
    return [kept] if keep else None
