"""Every row's file, made here by the published layout, loads from its name alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ops.checkpoint.file import load_checkpoint, load_into
from ops.checkpoint.weights import canonical_key
from ops.models import build_model
from pretrained.table import Row, load_table

RELEASED = [row for row in load_table() if row.file]
NUM_CLASSES = {"kinetics": 400, "something": 174, "somethingv2": 174, "jester": 27}


def _published_keys(row: Row) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a row's file, from torchvision's 2D network and the rules of the layout alone."""
    import torchvision

    num_class = NUM_CLASSES[row.dataset]
    arch = next(a for a in ("resnet101", "resnet50", "mobilenetv2") if a in row.file)
    keys: dict[str, tuple[int, ...]] = {}
    if arch == "mobilenetv2":
        return _mobilenet_keys(num_class, streaming="online" in row.file)
    net = torchvision.models.get_model(arch, weights=None)
    for key, value in net.state_dict().items():
        block = re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key)
        every = 2 if arch == "resnet101" else 1
        name = key
        if block and "_shift8_blockres" in row.file and int(block[2]) % every == 0:
            name = f"layer{block[1]}.{block[2]}.conv1.net.weight"
        if "_nl" in row.file:
            name = re.sub(r"^(layer2\.[02]|layer3\.[024])\.", r"\1.block.", name)
        shape = tuple(value.shape)
        if key == "conv1.weight" and row.modality == "Flow":
            shape = (64, 10, 7, 7)
        if not key.startswith("fc."):
            keys[f"module.base_model.{name}"] = shape
    if "_nl" in row.file:
        for stage, blocks, channels in ((2, (0, 2), 512), (3, (0, 2, 4), 1024)):
            for block in blocks:
                prefix = f"module.base_model.layer{stage}.{block}.nl."
                inner = channels // 2
                for part in ("g.0", "theta", "phi.0"):
                    keys[f"{prefix}{part}.weight"] = (inner, channels, 1, 1, 1)
                    keys[f"{prefix}{part}.bias"] = (inner,)
                keys[f"{prefix}W.0.weight"] = (channels, inner, 1, 1, 1)
                keys[f"{prefix}W.0.bias"] = (channels,)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    keys[f"{prefix}W.1.{part}"] = (channels,)
                keys[f"{prefix}W.1.num_batches_tracked"] = ()
    keys["module.new_fc.weight"] = (num_class, 2048)
    keys["module.new_fc.bias"] = (num_class,)
    return keys


def _mobilenet_keys(num_class: int, streaming: bool) -> dict[str, tuple[int, ...]]:
    """Table 2 of arXiv:1801.04381 in the flat layout."""
    keys: dict[str, tuple[int, ...]] = {}
    prefix = "" if streaming else "module.base_model."

    def conv_bn(name: str, bn: str, shape: tuple[int, ...]) -> None:
        keys[f"{prefix}{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            keys[f"{prefix}{bn}.{part}"] = shape[:1]
        keys[f"{prefix}{bn}.num_batches_tracked"] = ()

    conv_bn("features.0.0", "features.0.1", (32, 3, 3, 3))
    inputs, index = 32, 0
    for expansion, outputs, blocks in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for block in range(blocks):
            index += 1
            name, layer = f"features.{index}.conv", 0
            hidden = inputs * expansion
            if expansion > 1:
                net = ".net" if block > 0 and not streaming else ""  # a shortcut: same size, same channels
                conv_bn(f"{name}.0{net}", f"{name}.1", (hidden, inputs, 1, 1))
                layer = 3
            conv_bn(f"{name}.{layer}", f"{name}.{layer + 1}", (hidden, 1, 3, 3))
            conv_bn(f"{name}.{layer + 3}", f"{name}.{layer + 4}", (outputs, hidden, 1, 1))
            inputs = outputs
    conv_bn("features.18.0", "features.18.1", (1280, 320, 1, 1))
    head = "classifier" if streaming else "module.new_fc"
    keys[f"{head}.weight"] = (num_class, 1280)
    keys[f"{head}.bias"] = (num_class,)
    return keys


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
