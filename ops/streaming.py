"""Any online TSM as a per-frame module with explicit state (arXiv:1811.08383, section 4: online video recognition).

The online shift gives frame t the first C // n_div channels of frame t - 1. Keeping those channels, one buffer a
shift, turns the clip network into one that takes a frame at a time, at the cost of a 2D network. torch.fx records the
network's own forward, so no architecture is written down twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from archs.bn_inception import INCEPTIONS, BNInception
from ops.checkpoint.file import load_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.streaming_layout import streaming_options
from ops.checkpoint.weights import first_conv_name, load_into
from ops.common.errors import InputError
from ops.models import build_model
from ops.network.runtime import fold_batchnorm
from ops.non_local import NL3DWrapper
from ops.temporal_shift import TemporalPool, TemporalShift
from ops.transforms import ClipNormalize, scale_size, test_transform

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
        class_names: in label order, None where not known.
        input_size, scale_size, normalization, num_class: as the TSN has them.

    Raises:
        InputError: a network that needs later frames (shift in both directions, temporal pool, non-local), or has no
            shift at all.
    """

    def __init__(self, model: nn.Module, options: ModelOptions | None = None) -> None:
        super().__init__()
        self.net, self.num_buffers = trace_step(model.eval())
        self.input_names = ["frame", *(f"shift_in_{index}" for index in range(self.num_buffers))]
        self.output_names = ["logits", *(f"shift_out_{index}" for index in range(self.num_buffers))]
        self.options = options
        self.class_names = None if options is None else options.class_names
        self.input_size: int = getattr(model, "input_size", 224)
        self.scale_size: int = getattr(model, "scale_size", scale_size(self.input_size))
        self.num_class: int | None = getattr(model, "num_class", None)
        self.normalization: dict | None = getattr(model, "normalization", None)
        self._normalize = None if self.normalization is None else ClipNormalize(**self.normalization)
        self._shapes: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        self.eval()

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, fold_bn: bool = False, input_size: int | None = None) -> StreamingTSM:
        """Load an online checkpoint of ours, or a file in the published streaming layout under any name.

        `fold_bn`: fold BatchNorm into the convolutions, which computes the same, faster. `input_size`: as trained.

        Raises:
            InputError: not a checkpoint, or one of a network that cannot stream.
        """
        checkpoint = load_checkpoint(path)
        if checkpoint.num_class is None:
            raise InputError(f"{path}: holds no classifier, only a backbone: train it first (--tune_from)")
        options = streaming_options(checkpoint)
        size = input_size or options.input_size
        model = build_model(options, num_class=checkpoint.num_class, partial_bn=False, input_size=size)
        load_into(model, checkpoint)
        model.eval().requires_grad_(False)
        if fold_bn:
            fold_batchnorm(model)
        try:
            return cls(model, options)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

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
        """Zeros: the state of `batch` streams before their first frame; device and dtype default to the weights'."""
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
        mask = torch.zeros(len(state[0]), dtype=torch.bool)
        try:
            mask[torch.as_tensor(streams).cpu()] = True
        except IndexError as error:
            raise InputError(f"there are {len(mask)} streams, numbered from 0, got {streams}") from error
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
            raise InputError("the normalisation of this network is not known: normalise the frames yourself")
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
        if frames.dim() == 3:
            frames = frames[None]
        if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[1] != 3:
            raise InputError(f"frames are uint8 RGB, got {frames.dtype} of shape {tuple(frames.shape)}")
        crop = test_transform(self.input_size, self.scale_size)
        return self._normalize(crop(frames, None)[0])

    def _check(self, frame: Tensor, state: State) -> None:
        if frame.dim() != 4 or frame.shape[1] != 3 or not frame.is_floating_point():
            raise InputError(
                f"frames are normalised floats (N, 3, H, W), got {frame.dtype} of shape {tuple(frame.shape)}; "
                "preprocess makes them from uint8 images"
            )
        wanted = [(len(frame), *shape) for shape in self.state_shapes(*frame.shape[2:])]
        given = [tuple(buffer.shape) for buffer in state]
        if given != wanted:
            raise InputError(
                f"the state does not belong to {len(frame)} streams of {frame.shape[3]}x{frame.shape[2]} frames: "
                f"it has buffers {given}, not {wanted}; make a new one with init_state"
            )


# --- one frame of a clip network --------------------------------------------------------------------------------------


def shift_step(x: Tensor, before: Tensor | None, fold_div: int) -> tuple[Tensor, Tensor]:
    """The online shift of one frame: (N, C, H, W) -> the same shape, and what the next frame will take.

    `before`: (N, C // fold_div, H, W) of the previous frame, None for zeros. A slice and a concatenation only:
    assignment into a slice would be frozen by tracers and exporters.
    """
    fold = x.shape[1] // fold_div
    kept = x[:, :fold]
    if before is None:
        before = torch.zeros_like(kept)
    return torch.cat((before, x[:, fold:]), dim=1), kept


def trace_step(model: nn.Module) -> tuple[fx.GraphModule, int]:
    """A module (frame, *buffers) -> (scores, *buffers) that runs the layers of `model`, and the number of buffers.

    `model`: a TSN, or a 2D network with shifts; InputError for one that needs more than the frames so far.
    """
    _check_streams(model)
    tracer = _StepTracer()
    backbone = getattr(model, "base_model", model)
    if isinstance(backbone, BNInception):
        backbone = _with_recorded_shifts(backbone, tracer)
    net = _PerFrame(backbone, getattr(model, "new_fc", None))
    graph = tracer.trace(net)
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = ((output.args[0], *(proxy.node for proxy in tracer.kept)),)
    graph.lint()
    return fx.GraphModule(net, graph, "StreamingStep").eval(), len(tracer.kept)


class _PerFrame(nn.Module):
    """Backbone and classifier, as TSN.frame_scores runs them. `buffers` are there for the tracer to take from."""

    def __init__(self, backbone: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.base_model = backbone
        self.new_fc = head

    def forward(self, frame: Tensor, *buffers: Tensor) -> Tensor:
        features = self.base_model(frame)
        return features if self.new_fc is None else self.new_fc(features)


class _StepTracer(fx.Tracer):
    """Records a forward in which every shift takes the next buffer. `kept`: the new buffers, in running order."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[fx.Proxy] = []

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        if not isinstance(m, TemporalShift):
            return super().call_module(m, forward, args, kwargs)
        conv = m.net.get_submodule(first_conv_name(m.net))  # what the shift wraps, or its residual block begins with
        return m.net(self.shift(*args, conv.in_channels, m.fold_div))

    def shift(self, x: fx.Proxy, num_channels: int, fold_div: int) -> fx.Proxy:
        """Record a shift of (N, num_channels, H, W); none where no channel moves."""
        if num_channels < fold_div:
            return x
        buffers = self.proxy(next(node for node in self.graph.nodes if node.target == "*buffers"))
        step = self.create_proxy("call_function", shift_step, (x, buffers[len(self.kept)], fold_div), {})
        self.kept.append(step[1])
        return step[0]


def _with_recorded_shifts(net: BNInception, tracer: _StepTracer) -> BNInception:
    """The same layers under a BNInception whose shifts, which are functions and not modules, the tracer records."""
    convs = ["conv1_7x7_s2", "conv2_3x3_reduce", *(f"inception_{block.name}_3x3_reduce" for block in INCEPTIONS)]
    twin = copy.copy(net)
    twin.block_shifts = list(net.block_shifts)
    for index, (conv, shift) in enumerate(zip(convs, net.block_shifts, strict=True)):
        if shift is not None:
            channels = net.get_submodule(conv).in_channels
            twin.block_shifts[index] = partial(tracer.shift, num_channels=channels, fold_div=shift.keywords["fold_div"])
    return twin


def _check_streams(model: nn.Module) -> None:
    """Raise InputError for a network that needs more than the frames so far."""
    name = type(model).__name__
    modality = getattr(model, "modality", "RGB")
    if modality != "RGB":
        raise InputError(f"streaming takes RGB frames, and this {name} takes {modality}: train one on RGB")
    modules = list(model.modules())
    for kind, what in (
        (NL3DWrapper, "non-local blocks, which look at all frames of a clip"),
        (TemporalPool, "a temporal pool, which looks at the next frame"),
    ):
        if any(isinstance(module, kind) for module in modules):
            raise InputError(f"this {name} has {what}: it cannot stream")
    online = [module.online for module in modules if isinstance(module, TemporalShift)]
    shifts = [shift for module in modules if isinstance(module, BNInception) for shift in module.block_shifts if shift]
    online += [shift.keywords["online"] for shift in shifts]
    if not online:
        raise InputError(f"this {name} has no temporal shift: streaming is for networks trained with --shift --online")
    if not all(online):
        raise InputError(f"this {name} shifts from the next frame too: to stream, train one with --shift --online")
