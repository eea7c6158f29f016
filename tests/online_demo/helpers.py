"""A streaming network that knows still pictures, for tests of the live demo.

Its backbone is random, its classifier is fitted to the features that each picture settles at when it does not move. So
its answer does not depend on how many frames it saw, or how far apart: browsers and windows may take their time.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ops.checkpoint.file import save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.models import build_model
from ops.streaming import StreamingTSM

NUM_PICTURES = 5
CLASS_NAMES = [f"picture {index}" for index in range(NUM_PICTURES)]
INPUT_SIZE = 64
_SETTLED = 14  # frames until nothing changes any more: every shift looks one frame back


def picture(index: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Picture `index`: smooth coloured waves, uint8 (H, W, 3); size is (width, height)."""
    rng = np.random.RandomState(100 + index)
    width, height = size
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slopes, phases = rng.uniform(-9, 9, (3, 2)), rng.uniform(0, 6.28, 3)
    waves = [np.sin(slopes[c, 0] * x + slopes[c, 1] * y + phases[c]) for c in range(3)]
    return (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def save_random(path: Path, *, arch: str = "mobilenetv2", num_class: int = NUM_PICTURES, **options: object) -> Path:
    """A streaming network with random weights and BatchNorm statistics that keep activations of order one."""
    model, known = _random_model(arch, num_class, **options)
    _save(model, known, path)
    return path


def save_knowing_pictures(path: Path) -> Path:
    """A streaming network that distinguishes the pictures."""
    model, options = _random_model("mobilenetv2", NUM_PICTURES, class_names=CLASS_NAMES)
    head, model.new_fc = model.new_fc, nn.Identity()
    stream = StreamingTSM(model)
    rows, targets = [], []
    for index in range(NUM_PICTURES):
        for shade in (-14, 0, 14):  # JPEG, YUV and resizing must not matter
            image = np.clip(picture(index).astype(int) + shade, 0, 255).astype(np.uint8)
            frame, state = stream.preprocess(image), stream.init_state(1, INPUT_SIZE, INPUT_SIZE)
            for _ in range(_SETTLED):
                features, state = stream.step(frame, state)
            rows.append(features[0].double())
            targets.append(8.0 * torch.eye(NUM_PICTURES, dtype=torch.float64)[index])
    x, y = torch.stack(rows), torch.stack(targets)
    mean = x.mean(dim=0)
    x = x - mean
    ridge = 0.01 * x.square().sum(dim=1).mean() * torch.eye(len(x), dtype=torch.float64)
    weight = (x.T @ torch.linalg.solve(x @ x.T + ridge, y)).T  # (K, features), by kernel ridge regression
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(-weight @ mean)
    model.new_fc = head
    _save(model, options, path)
    return path


def _random_model(arch: str, num_class: int, **changes: object) -> tuple[nn.Module, ModelOptions]:
    torch.manual_seed(0)
    settings = {"dataset": "pictures", "num_segments": 8, "is_shift": True, "online": True, "input_size": INPUT_SIZE}
    options = ModelOptions(arch=arch, num_class=num_class, **{**settings, **changes})
    model = build_model(options, num_class=num_class, partial_bn=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = None  # the mean over what comes
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 24, INPUT_SIZE, INPUT_SIZE))
    nn.init.normal_(model.new_fc.weight, std=0.1)
    return model.eval(), options


def _save(model: nn.Module, options: ModelOptions, path: Path) -> None:
    state = {"arch": options.arch, "state_dict": published_state_dict(model), "options": options.to_dict()}
    save_checkpoint(state, path)


def wait_until(look: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.02)


def encoded(image: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, quality=90, **options)
    return buffer.getvalue()
