"""Any online TSM as a per-frame module with explicit state (arXiv:1811.08383, section 4: online video recognition).

The online shift gives frame t the first C // n_div channels of frame t - 1. Keeping those channels, one buffer a
shift, turns the clip network into one that takes a frame at a time, at the cost of a 2D network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from archs.bn_inception import INCEPTIONS, BNInception
from ops.checkpoint import Checkpoint, ModelOptions, load_checkpoint, load_into
from ops.errors import InputError
from ops.folding import fold_batchnorm
from ops.models import build_model
from ops.non_local import NL3DWrapper
from ops.temporal_shift import TemporalPool, TemporalShift
from ops.transforms import ClipNormalize, test_transform

State = tuple[Tensor, ...]

# In label order: the published streaming file does not hold them.
JESTER_CLASSES = (
    "Doing other things",
    "Drumming Fingers",
    "No gesture",
    "Pulling Hand In",
    "Pulling Two Fingers In",
    "Pushing Hand Away",
    "Pushing Two Fingers Away",
    "Rolling Hand Backward",
    "Rolling Hand Forward",
    "Shaking Hand",
    "Sliding Two Fingers Down",
    "Sliding Two Fingers Left",
    "Sliding Two Fingers Right",
    "Sliding Two Fingers Up",
    "Stop Sign",
    "Swiping Down",
    "Swiping Left",
    "Swiping Right",
    "Swiping Up",
    "Thumb Down",
    "Thumb Up",
    "Turning Hand Clockwise",
    "Turning Hand Counterclockwise",
    "Zooming In With Full Hand",
    "Zooming In With Two Fingers",
    "Zooming Out With Full Hand",
    "Zooming Out With Two Fingers",
)


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


class _PerFrame(nn.Module):
    """Backbone and classifier, as TSN.frame_scores runs them. `buffers` are for the tracer to see."""

    def __init__(self, backbone: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.base_model = backbone
        self.new_fc = head

    def forward(self, frame: Tensor, *buffers: Tensor) -> Tensor:
        features = self.base_model(frame)
        return features if self.new_fc is None else self.new_fc(features)


class _StepTracer(fx.Tracer):
    """Records a network's own forward with each online shift turned into an input and an output."""

    def trace_step(self, net: _PerFrame) -> fx.GraphModule:
        """A module of the same layers: (frame, *buffers) -> (scores, *buffers)."""
        self.kept: list[fx.Proxy] = []
        graph = self.trace(net)
        output = next(node for node in graph.nodes if node.op == "output")
        output.args = ((output.args[0], *(proxy.node for proxy in self.kept)),)
        graph.lint()
        return fx.GraphModule(net, graph, "StreamingStep")

    def call_module(self, m, forward, args, kwargs):
        if not isinstance(m, TemporalShift):
            return super().call_module(m, forward, args, kwargs)
        (x,) = args
        return m.net(self.shift(x, m.fold_div) if _input_channels(m.net) >= m.fold_div else x)

    def shift(self, x: fx.Proxy, fold_div: int) -> fx.Proxy:
        """Record a shift whose state is the next buffer."""
        buffers = self.proxy(next(node for node in self.graph.nodes if node.op == "placeholder" and "*" in node.target))
        step = self.create_proxy("call_function", shift_step, (x, buffers[len(self.kept)], fold_div), {})
        self.kept.append(step[1])
        return step[0]


def _input_channels(net: nn.Module) -> int:
    """Channels that a wrapped conv or residual block takes."""
    return next(module.in_channels for module in net.modules() if isinstance(module, nn.Conv2d))


def _with_recorded_shifts(net: BNInception, tracer: _StepTracer) -> BNInception:
    """The same network, same layers, whose block shifts the tracer records: they are functions, not modules."""
    convs = ["conv1_7x7_s2", "conv2_3x3_reduce", *(f"inception_{block.name}_3x3_reduce" for block in INCEPTIONS)]

    def recorded(shift, conv: str):
        fold_div = shift.keywords["fold_div"] if shift else 0
        if not shift or net.get_submodule(conv).in_channels < fold_div:
            return None
        return lambda x: tracer.shift(x, fold_div)

    twin = copy.copy(net)
    twin.block_shifts = [recorded(shift, conv) for shift, conv in zip(net.block_shifts, convs, strict=True)]
    return twin


def _check_streams(model: nn.Module) -> None:
    """Raise InputError for a network that needs more than the frames so far."""
    name = type(model).__name__
    modality = getattr(model, "modality", "RGB")
    if modality != "RGB":
        raise InputError(f"streaming takes RGB frames, and this {name} takes {modality}: train one on RGB")
    modules = list(model.modules())
    if any(isinstance(module, NL3DWrapper) for module in modules):
        raise InputError(f"this {name} has non-local blocks, which look at all frames of a clip: it cannot stream")
    if any(isinstance(module, TemporalPool) for module in modules):
        raise InputError(f"this {name} has a temporal pool, which looks at the next frame: it cannot stream")
    shifts = [module.online for module in modules if isinstance(module, TemporalShift)]
    for module in modules:
        if isinstance(module, BNInception):
            shifts += [shift.keywords["online"] for shift in module.block_shifts if shift is not None]
    if not shifts:
        raise InputError(f"this {name} has no temporal shift: streaming is for networks trained with --shift --online")
    if not all(shifts):
        raise InputError(
            f"this {name} shifts from the next frame too, so that it cannot stream: train one with --shift --online"
        )


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
        model: an online TSN, or a 2D network with online shifts (`make_temporal_shift(..., online=True)`); RGB. It is
            put into evaluation mode.
        options: what the network is, where known.

    Attributes:
        num_buffers: number of shifts, one buffer (N, C // n_div, H, W) each.

    Raises:
        InputError: a network that needs later frames (shift in both directions, temporal pool, non-local), or has no
            shift at all.
    """

    def __init__(self, model: nn.Module, options: ModelOptions | None = None) -> None:
        super().__init__()
        _check_streams(model)
        model.eval()
        backbone, tracer = getattr(model, "base_model", model), _StepTracer()
        if isinstance(backbone, BNInception):
            backbone = _with_recorded_shifts(backbone, tracer)
        self.net = tracer.trace_step(_PerFrame(backbone, getattr(model, "new_fc", None)))
        self.net.eval()
        self.num_buffers = len(tracer.kept)
        self.options = options
        self.input_size: int = getattr(model, "input_size", 224)
        self.scale_size: int = getattr(model, "scale_size", self.input_size * 256 // 224)
        self.normalization: dict | None = getattr(model, "normalization", None)
        self._shapes: dict[tuple[int, int], list[tuple[int, ...]]] = {}

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, fold: bool = False) -> StreamingTSM:
        """Load an online checkpoint of ours, or a file in the published streaming layout under any name.

        `fold`: fold BatchNorm into the convolutions, which computes the same faster.

        Raises:
            InputError: not a checkpoint, or one of a network that cannot stream.
        """
        checkpoint = load_checkpoint(path)
        options = streaming_options(checkpoint)
        model = build_model(options, num_class=checkpoint.num_class, partial_bn=False)
        load_into(model, checkpoint)
        model.eval().requires_grad_(False)
        try:
            if fold:
                fold_batchnorm(model)
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
            InputError: a state of other streams, frame size or network.
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
        if self.normalization is None:
            raise InputError("how this network wants its pixels is not known: normalise the frames yourself")
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
        if frames.dim() == 3:
            frames = frames[None]
        if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[1] != 3:
            raise InputError(f"frames are uint8 RGB, got {frames.dtype} of shape {tuple(frames.shape)}")
        crop = test_transform(self.input_size, self.scale_size)
        return ClipNormalize(**self.normalization)(crop(frames, None)[0])

    def _check(self, frame: Tensor, state: State) -> None:
        if frame.dim() != 4 or frame.shape[1] != 3:
            raise InputError(f"frames are (N, 3, H, W), got shape {tuple(frame.shape)}")
        wanted = [(len(frame), *shape) for shape in self.state_shapes(*frame.shape[2:])]
        given = [tuple(buffer.shape) for buffer in state]
        if given != wanted:
            raise InputError(
                f"the state does not belong to {len(frame)} streams of {frame.shape[3]}x{frame.shape[2]} frames: "
                f"it has buffers {given}, not {wanted}; make a new one with init_state"
            )


def streaming_options(checkpoint: Checkpoint) -> ModelOptions:
    """Options of a checkpoint; those of the published streaming model where its layout, but not its name, tells."""
    options = checkpoint.known_options
    if options is None and is_streaming_layout(checkpoint.state_dict):
        dataset = "jester" if checkpoint.num_class == len(JESTER_CLASSES) else "unknown"
        options = ModelOptions(
            dataset, arch="mobilenetv2", num_class=checkpoint.num_class, is_shift=True, online=True, dropout=0.0
        )
    options = options or checkpoint.options  # raises, and says what would help
    if options.class_names is None and options.dataset == "jester" and checkpoint.num_class == len(JESTER_CLASSES):
        options = ModelOptions.from_dict({**options.to_dict(), "class_names": list(JESTER_CLASSES)})
    return options


def is_streaming_layout(state_dict: dict[str, Tensor]) -> bool:
    """Whether these are the keys of the published streaming MobileNetV2: no prefix, no `.net`, one Linear."""
    return {"features.0.0.weight", "features.18.0.weight", "classifier.weight", "classifier.bias"} <= set(
        state_dict
    ) and all(key.startswith(("features.", "classifier.")) and ".net." not in key for key in state_dict)
