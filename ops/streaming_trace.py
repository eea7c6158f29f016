"""From an online clip network to one that takes a frame: the same layers, each shift's memory as an input and output.

torch.fx records the network's own forward, so no architecture is written down twice; the recorded module calls the
layers of the original, whose weights it shares.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from archs.bn_inception import INCEPTIONS, BNInception
from ops.common.errors import InputError
from ops.non_local import NL3DWrapper
from ops.temporal_shift import TemporalPool, TemporalShift


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

    Args:
        model: a TSN, or a 2D network with shifts.

    Raises:
        InputError: the network needs more than the frames so far.
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
        (x,) = args
        return m.net(self.shift(x, _first_conv(m.net).in_channels, m.fold_div))

    def shift(self, x: fx.Proxy, num_channels: int, fold_div: int) -> fx.Proxy:
        """Record a shift of (N, num_channels, H, W); none where no channel moves."""
        if num_channels < fold_div:
            return x
        buffers = self.proxy(next(node for node in self.graph.nodes if node.target == "*buffers"))
        step = self.create_proxy("call_function", shift_step, (x, buffers[len(self.kept)], fold_div), {})
        self.kept.append(step[1])
        return step[0]


def _first_conv(net: nn.Module) -> nn.Conv2d:
    """The conv that a shift wraps, or the one that its residual block begins with."""
    return next(module for module in net.modules() if isinstance(module, nn.Conv2d))


def _with_recorded_shifts(net: BNInception, tracer: _StepTracer) -> BNInception:
    """The same layers under a BNInception whose shifts, which are functions and not modules, the tracer records."""
    convs = ["conv1_7x7_s2", "conv2_3x3_reduce", *(f"inception_{block.name}_3x3_reduce" for block in INCEPTIONS)]

    def recorded(conv: str, fold_div: int) -> Callable[[fx.Proxy], fx.Proxy]:
        return lambda x: tracer.shift(x, net.get_submodule(conv).in_channels, fold_div)

    twin = copy.copy(net)
    twin.block_shifts = [
        None if shift is None else recorded(conv, shift.keywords["fold_div"])
        for conv, shift in zip(convs, net.block_shifts, strict=True)
    ]
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
    online = [module.online for module in modules if isinstance(module, TemporalShift)]
    for module in modules:
        if isinstance(module, BNInception):
            online += [shift.keywords["online"] for shift in module.block_shifts if shift is not None]
    if not online:
        raise InputError(f"this {name} has no temporal shift: streaming is for networks trained with --shift --online")
    if not all(online):
        raise InputError(
            f"this {name} shifts from the next frame too, so it cannot stream: train one with --shift --online"
        )
