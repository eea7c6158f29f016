"""Every row's file, made here by the published layout, loads from its name alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision

from ops.checkpoint.file import load_checkpoint
from ops.checkpoint.keys import canonical_key
from ops.checkpoint.weights import load_into
from ops.models import build_model
from pretrained.table import Row, load_table

RELEASED = [row for row in load_table() if row.file]
NUM_CLASSES = {"kinetics": 400, "something": 174, "somethingv2": 174, "jester": 27}


def _published_keys(row: Row) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a row's file, from torchvision's 2D network and the rules of the layout alone."""
    num_class = NUM_CLASSES[row.dataset]
    arch = next(a for a in ("resnet101", "resnet50", "mobilenetv2") if a in row.file)
    if arch == "mobilenetv2":
        return _mobilenet_keys(num_class, streaming="online" in row.file)
    keys: dict[str, tuple[int, ...]] = {}
    for key, value in torchvision.models.get_model(arch, weights=None).state_dict().items():
        block = re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key)
        every = 2 if arch == "resnet101" else 1
        name = key
        if block and "_shift8_blockres" in row.file and int(block[2]) % every == 0:
            name = f"layer{block[1]}.{block[2]}.conv1.net.weight"
        if "_nl" in row.file:
            name = re.sub(r"^(layer2\.[02]|layer3\.[024])\.", r"\1.block.", name)
        is_flow_conv = key == "conv1.weight" and row.modality == "Flow"
        if not key.startswith("fc."):
            keys[f"module.base_model.{name}"] = (64, 10, 7, 7) if is_flow_conv else tuple(value.shape)
    for stage, blocks, channels in ((2, (0, 2), 512), (3, (0, 2, 4), 1024)):
        for block in blocks if "_nl" in row.file else ():
            prefix, inner = f"module.base_model.layer{stage}.{block}.nl.", channels // 2
            for part in ("g.0", "theta", "phi.0"):
                keys |= {f"{prefix}{part}.weight": (inner, channels, 1, 1, 1), f"{prefix}{part}.bias": (inner,)}
            keys |= {f"{prefix}W.0.weight": (channels, inner, 1, 1, 1), f"{prefix}W.0.bias": (channels,)}
            keys |= {f"{prefix}W.1.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
            keys[f"{prefix}W.1.num_batches_tracked"] = ()
    return keys | {"module.new_fc.weight": (num_class, 2048), "module.new_fc.bias": (num_class,)}


def _mobilenet_keys(num_class: int, streaming: bool) -> dict[str, tuple[int, ...]]:
    """torchvision's MobileNetV2 in the flat layout: its triples of conv, BN and ReLU are written out."""
    keys: dict[str, tuple[int, ...]] = {}
    state_dict = torchvision.models.mobilenet_v2(num_classes=num_class).state_dict()
    for key, value in state_dict.items():
        name, block = key, re.fullmatch(r"(features\.\d+\.conv)\.(\d)\.(?:(\d)\.)?(\w+)", key)
        if block:
            triples = 2 if f"{block[1]}.1.0.weight" in state_dict else 1  # the first block does not expand
            index = 3 * int(block[2]) + int(block[3]) if block[3] else 3 * triples + int(block[2]) - triples
            # A shortcut (same size and channels) makes a shifted block.
            shifted = int(block[1].split(".")[1]) in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
            net = ".net" if index == 0 and shifted and not streaming else ""
            name = f"{block[1]}.{index}{net}.{block[4]}"
        if not streaming:
            name = f"module.base_model.{name}"
        if not key.startswith("classifier"):
            keys[name] = tuple(value.shape)
    head = "classifier" if streaming else "module.new_fc"
    return keys | {f"{head}.weight": (num_class, 1280), f"{head}.bias": (num_class,)}


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row.name)
def test_each_rows_file_loads_from_its_name_alone(row: Row, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in _published_keys(row).items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(5)
        else:
            weights[key] = torch.rand(shape, generator=generator)
    path = tmp_path / row.file
    data = weights if "online" in row.file else {"epoch": 50, "state_dict": weights, "best_prec1": 70.0}
    torch.save(data, path, _use_new_zipfile_serialization=False)
    checkpoint = load_checkpoint(path)
    path.unlink()
    assert checkpoint.options.num_class == NUM_CLASSES[row.dataset]
    net = build_model(checkpoint.options)
    report = load_into(net, checkpoint)
    assert (report.skipped, report.missing) == ([], [])
    given = {canonical_key(key): value for key, value in weights.items()}
    for key, value in net.state_dict().items():
        assert torch.equal(value, given[canonical_key(key)]), key
    assert len(report.remapped) == (len(weights) if "online" in row.file else 0)
    net.eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.mul_(0.01)
        channels = 10 if row.modality == "Flow" else 3
        scores = net(torch.rand(1, checkpoint.options.num_segments * channels, 32, 32))
    assert scores.shape == (1, NUM_CLASSES[row.dataset])
    assert bool(torch.isfinite(scores).all())
