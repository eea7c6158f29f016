"""A training step (forward, loss, backward, SGD): this TSM, its 2D twin, and the textbook TSM.

python -m benchmarks.step [--arch resnet50] [--clips 1] [--segments 8] [--size 224] [--amp] [--compile] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.processes import OwnProcess
from benchmarks.shift import textbook_shift
from benchmarks.timing import benchmark_parser, interleave, median_ms, prepare, print_table, ratio
from ops.common.errors import at_least, run_command
from ops.temporal_shift import make_temporal_shift

NUM_CLASSES = 400
TEXTBOOK, TSM, FLAT = "textbook TSM, NCHW", "TSM", "2D network"


class TextbookShift(nn.Module):
    """`net` on a shifted copy of its input."""

    def __init__(self, net: nn.Module, n_segment: int):
        super().__init__()
        self.net = net
        self.n_segment = n_segment

    def forward(self, x: Tensor) -> Tensor:
        return self.net(textbook_shift(x, self.n_segment))


def build(arch: str, kind: str, n_segment: int) -> nn.Module:
    """A ResNet with the shift of `kind` (TEXTBOOK, TSM), or without (FLAT); the same weights in each."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(arch, num_classes=NUM_CLASSES)
    if kind != FLAT:
        for name in make_temporal_shift(net, n_segment):
            if kind == TEXTBOOK:
                parent, _, child = name.rpartition(".")
                block = net.get_submodule(parent)
                setattr(block, child, TextbookShift(getattr(block, child).net, n_segment))
    return net


class Step:
    """One training step of one network, as a callable."""

    def __init__(self, net: nn.Module, clips: Tensor, labels: Tensor, *, amp: bool = False, compiled: bool = False):
        self.net, self.clips, self.labels, self.amp = net.train(), clips, labels, amp
        self.model = torch.compile(net) if compiled else net
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def loss(self) -> Tensor:
        with torch.autocast(self.clips.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return F.cross_entropy(self.model(self.clips), self.labels)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        if self.clips.is_cuda:
            torch.cuda.synchronize()

    def saved_bytes(self) -> int:
        """Bytes that autograd saves for the backward pass, the network's own tensors left out."""
        own = {t.untyped_storage().data_ptr() for t in (*self.net.parameters(), *self.net.buffers())}
        return sum(size for address, size in saved_storages(self.loss()).items() if address not in own)


def saved_storages(output: Tensor) -> dict[int, int]:
    """Bytes by address of the distinct storages that the graph of `output` holds for its backward pass.

    Read from the graph: under saved-tensor hooks the shift would be out of place.
    """
    storages: dict[int, int] = {}
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in (*saved, *getattr(node, "saved_tensors", ())):
            if isinstance(tensor, Tensor):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return storages


MODES = {"": {}, " bf16": {"amp": True}, " compiled": {"compiled": True}}


def build_step(name: str, args: argparse.Namespace) -> Step:
    """The case of a row: TEXTBOOK, or TSM or FLAT with a mode of MODES after it."""
    textbook = name == TEXTBOOK
    channels_last = not textbook and args.memory_format == "channels_last"
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    kind = next(kind for kind in (TEXTBOOK, TSM, FLAT) if name.startswith(kind))
    torch.manual_seed(0)
    frames = torch.randn(args.clips * args.segments, 3, args.size, args.size, device=args.device)
    labels = torch.randint(NUM_CLASSES, (len(frames),), device=args.device)
    net = build(args.arch, kind, args.segments).to(args.device, memory_format=memory_format)
    return Step(net, frames.to(memory_format=memory_format), labels, **MODES[name.removeprefix(kind)])


def make_rows(args: argparse.Namespace) -> list[list[object]]:
    modes = ["", *([" bf16"] if args.amp else []), *([" compiled"] if args.compile else [])]
    names = [TEXTBOOK, *(kind + mode for mode in modes for kind in (TSM, FLAT))]
    cases = {name: OwnProcess(build_step, name, args, threads=args.threads, tuned=name != TEXTBOOK) for name in names}
    times = interleave(cases, rounds=args.rounds, warmup=2)
    rows = []
    for name, case in cases.items():
        twin = name.replace(TSM, FLAT) if name.startswith(TSM) else name
        saved = "-" if name.endswith(" compiled") else f"{case.ask('saved_bytes') / 1e6:.1f}"
        rows.append(
            [
                name if name == TEXTBOOK else f"{name}, {args.memory_format}",
                f"{median_ms(times, name):.0f}",
                "-" if twin == name else f"{ratio(times, name, twin):.3f}x",
                f"{ratio(times, TEXTBOOK, name):.2f}x",
                saved,
            ]
        )
        case.close()
    return rows


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__, rounds=21, network=True)
    parser.add_argument("--clips", type=at_least(1), default=1, help="clips a step")
    parser.add_argument("--segments", type=at_least(1), default=8, help="frames a clip")
    parser.add_argument(
        "--memory_format", choices=("channels_last", "NCHW"), default="channels_last", help="layout of activations"
    )
    parser.add_argument("--amp", action="store_true", help="also under bf16 autocast")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    return prepare(parser.parse_args(argv), arch="resnet18", size=64, rounds=3)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    rows = make_rows(args)
    print_table(
        f"Training step, {args.arch}, {args.clips} x {args.segments} frames, {args.size} px",
        ("network", "ms", "/ its 2D twin", "faster than textbook", "saved activations MB"),
        rows,
        device=args.device,
        note=f"Medians of {args.rounds} rounds, each network in a process of its own, in turns.",
    )


if __name__ == "__main__":
    run_command(main)
