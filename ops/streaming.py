"""Any online TSM as a per-frame module with explicit state (arXiv:1811.08383, section 4: online video recognition).

The online shift gives frame t the first C // n_div channels of frame t - 1. Keeping those channels, one buffer a
shift, turns the clip network into one that takes a frame at a time, at the cost of a 2D network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ops.checkpoint.file import ModelOptions, load_checkpoint, load_into
from ops.checkpoint.streaming_layout import streaming_options
from ops.common.errors import InputError
from ops.models import build_model
from ops.network.runtime import fold_batchnorm
from ops.streaming_trace import trace_step
from ops.transforms import ClipNormalize, test_transform

State = tuple[Tensor, ...]


class StreamingTSM(nn.Module):
    """An online TSM that takes one frame of each of N streams at a time.

        stream = StreamingTSM(model)
        state = stream.init_state(batch, height, width)
        scores, state = stream.step(frames, state)

    Frame t gets the scores that the clip network gives it (`TSN.frame_scores`). The layers are those of `model`, not
    copies: its weights, device and type stay shared. State is always passed in and handed back, so that several
    threads may use one module.

    `forward(frame, *buffers) -> (scores, *buffers)` is the same as `step` for exporters and compilers, which name
    inputs and outputs by `input_names` and `output_names`.

    Args:
        model: an online TSN, or a 2D network with online shifts (`make_temporal_shift(..., online=True)`); RGB. Its
            layers are put into evaluation mode.
        options: what the network is, where known.

    Attributes:
        num_buffers: number of shifts, one buffer (N, C // n_div, H, W) each.
        input_size, scale_size, normalization, num_class: as the TSN has them.

    Raises:
        InputError: a network that needs later frames (shift in both directions, temporal pool, non-local), or has no
            shift at all.
    """

    def __init__(self, model: nn.Module, options: ModelOptions | None = None) -> None:
        super().__init__()
        self.net, self.num_buffers = trace_step(model)
        self.options = options
        self.input_size: int = getattr(model, "input_size", 224)
        self.scale_size: int = getattr(model, "scale_size", self.input_size * 256 // 224)
        self.num_class: int | None = getattr(model, "num_class", None)
        self.normalization: dict | None = getattr(model, "normalization", None)
        self._normalize = None if self.normalization is None else ClipNormalize(**self.normalization)
        self._shapes: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        self.eval()

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, fold_bn: bool = False) -> StreamingTSM:
        """Load an online checkpoint of ours, or a file in the published streaming layout under any name.

        `fold_bn`: fold BatchNorm into the convolutions, which computes the same, faster.

        Raises:
            InputError: not a checkpoint, or one of a network that cannot stream.
        """
        checkpoint = load_checkpoint(path)
        if checkpoint.num_class is None:
            raise InputError(f"{path}: holds no classifier, only a backbone: train it first (--tune_from)")
        options = streaming_options(checkpoint)
        model = build_model(options, num_class=checkpoint.num_class, partial_bn=False)
        load_into(model, checkpoint)
        model.eval().requires_grad_(False)
        if fold_bn:
            fold_batchnorm(model)
        try:
            return cls(model, options)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @property
    def class_names(self) -> list[str] | None:
        """Names in label order, where known."""
        return None if self.options is None else self.options.class_names

    @property
    def input_names(self) -> list[str]:
        """`frame`, `shift_in_0`, ..."""
        return ["frame", *(f"shift_in_{index}" for index in range(self.num_buffers))]

    @property
    def output_names(self) -> list[str]:
        """`logits`, `shift_out_0`, ..."""
        return ["logits", *(f"shift_out_{index}" for index in range(self.num_buffers))]

    def forward(self, frame: Tensor, *buffers: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) and the buffers -> scores (N, K) and the new buffers, which are views of larger tensors."""
        return self.net(frame, *buffers)

    @torch.no_grad()
    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame of each stream: normalised float (N, 3, H, W) -> scores (N, K), and the state after it.

        Raises:
            InputError: no floats, or a state of other streams, frame size or network.
        """
        self._check(frame, state)
        scores, *buffers = self.net(frame, *state)
        # A buffer of its own: the slice would keep the whole activation alive.
        return scores, tuple(buffer.clone() for buffer in buffers)

    def init_state(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> State:
        """Zeros: the state of `batch` streams of frames height x width before their first frame.

        `device`, `dtype`: those of the weights by default.
        """
        if batch < 1:
            raise InputError(f"a state is for 1 stream or more, got {batch}")
        weight = next(self.parameters())
        device, dtype = device or weight.device, dtype or weight.dtype
        return tuple(torch.zeros(batch, *s, device=device, dtype=dtype) for s in self.state_shapes(height, width))

    @staticmethod
    def reset(state: State, streams: int | Sequence[int] | Tensor) -> State:
        """The state with some streams at zero, before their first frame; the others' values are untouched.

        `streams`: index, indices, or a bool mask (N,).
        """
        num_streams = len(state[0])
        chosen = torch.as_tensor(streams).cpu()
        if chosen.dtype == torch.bool:
            if chosen.shape != (num_streams,):
                raise InputError(f"a mask of streams must have shape ({num_streams},), got {tuple(chosen.shape)}")
            mask = chosen
        else:
            chosen = chosen.reshape(-1).long()
            if any(not -num_streams <= index < num_streams for index in chosen.tolist()):
                raise InputError(f"streams are numbered 0 to {num_streams - 1}, got {chosen.tolist()}")
            mask = torch.zeros(num_streams, dtype=torch.bool)
            mask[chosen] = True
        return tuple(buffer.masked_fill(mask.to(buffer.device)[:, None, None, None], 0) for buffer in state)

    @torch.no_grad()
    def state_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """(C, H, W) of each buffer for frames of this size: 224 x 224 on MobileNetV2 begins with (3, 56, 56)."""
        shapes = self._shapes.get((height, width))
        if shapes is None:
            weight = next(self.parameters())
            frame = torch.zeros(1, 3, height, width, device=weight.device, dtype=weight.dtype)
            try:
                _, *buffers = self.net(frame, *(None,) * self.num_buffers)
            except RuntimeError as error:
                raise InputError(f"frames of {width}x{height} are too small for this network") from error
            shapes = self._shapes[height, width] = [tuple(buffer.shape[1:]) for buffer in buffers]
        return shapes

    def preprocess(self, frames: Tensor | np.ndarray) -> Tensor:
        """RGB frames as evaluation treats them: short side to 256, centre crop 224 (for an input size of 224).

        Args:
            frames: uint8; a tensor (3, H, W) or (N, 3, H, W), or an array (H, W, 3) or (N, H, W, 3).

        Returns:
            float32 (N, 3, input_size, input_size), normalised, on the device of the frames.
        """
        if self._normalize is None:
            raise InputError("how this network wants its pixels is not known: normalise the frames yourself")
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
        if frames.dim() == 3:
            frames = frames[None]
        if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[1] != 3:
            raise InputError(f"frames are uint8 RGB, got {frames.dtype} of shape {tuple(frames.shape)}")
        crop = test_transform(self.input_size, self.scale_size)
        return self._normalize(crop(frames, None)[0])

    def _check(self, frame: Tensor, state: State) -> None:
        if frame.dim() != 4 or frame.shape[1] != 3:
            raise InputError(f"frames are (N, 3, H, W), got shape {tuple(frame.shape)}")
        if not frame.is_floating_point():
            raise InputError(
                f"frames are normalised floats, got {frame.dtype}; preprocess makes them of uint8 pictures"
            )
        wanted = [(len(frame), *shape) for shape in self.state_shapes(*frame.shape[2:])]
        given = [tuple(buffer.shape) for buffer in state]
        if given != wanted:
            raise InputError(
                f"the state does not belong to {len(frame)} streams of {frame.shape[3]}x{frame.shape[2]} frames: "
                f"it has buffers {given}, not {wanted}; make a new one with init_state"
            )
