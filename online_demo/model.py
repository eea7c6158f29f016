"""The network that the demo runs: any online checkpoint, with its class names and the size of its frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from online_demo.gestures import JESTER_CLASSES
from ops.common.errors import InputError
from ops.dataset_config import read_class_names
from ops.streaming import StreamingTSM
from pretrained.fetch import fetch
from pretrained.table import files_folder, find_row, local_path

FOLDER = Path(__file__).resolve().parent
DEFAULT_WEIGHTS = FOLDER / "weights" / "moving_digits_online.pth.tar"  # scripts/train_tsm_moving_digits_online.sh
JESTER_ROW = "jester_tsm_mobilenetv2_online"


@dataclass(frozen=True)
class DemoModel:
    """A streaming network, BatchNorm folded, and what the demo knows about it.

    path: the file it comes from. digest: sha256 of that file.
    """

    stream: StreamingTSM
    path: Path
    digest: str
    class_names: tuple[str, ...]

    @property
    def input_size(self) -> int:
        return self.stream.input_size

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """(1, 3, H, W) of the network's input."""
        return (1, 3, self.input_size, self.input_size)

    @property
    def stem(self) -> str:
        """Beginning of the names of files made from it."""
        return self.path.name.split(".")[0]

    @property
    def identity(self) -> dict[str, object]:
        """What files made from it depend on."""
        return {"weights": self.digest, "size": self.input_size}

    @property
    def buffer_shapes(self) -> list[tuple[int, ...]]:
        """(1, C, H, W) of each buffer."""
        return [(1, *shape) for shape in self.stream.state_shapes(self.input_size, self.input_size)]

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """RGB picture uint8 (H, W, 3) -> float32 (1, 3, input_size, input_size), as evaluation treats its frames."""
        return self.stream.preprocess(image).numpy()

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Inputs to export and compile with: a frame and the buffers, zeros."""
        return tuple(torch.zeros(shape) for shape in (self.frame_shape, *self.buffer_shapes))


def load_model(
    weights: str | Path | None = None, *, jester: bool = False, labels: str | Path | None = None
) -> DemoModel:
    """Load what `--weights`, `--jester` and `--labels` ask for.

    Args:
        weights: an online checkpoint of ours, the published streaming file, or a name in the table of published
            checkpoints; None takes the small one of the repository, trained on the moving digits.
        jester: the published gesture network, fetched if it is not there yet.
        labels: class names, one a line, in place of those recorded in the checkpoint.

    Raises:
        InputError: no such file, a network that cannot stream, or another number of names than classes.
    """
    path = _find_weights(weights, jester=jester)
    stream = StreamingTSM.from_checkpoint(path, fold_bn=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DemoModel(stream, path, digest, _class_names(stream, path, labels))


def _find_weights(weights: str | Path | None, *, jester: bool) -> Path:
    if jester:
        if weights is not None:
            raise InputError("--jester and --weights exclude each other: give one of them")
        folder = files_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return fetch(find_row(JESTER_ROW), folder)
        except (InputError, OSError) as error:
            raise InputError(
                f"--jester: {error}; run python -m pretrained.fetch {JESTER_ROW} with its own options, or put the file "
                f"into {folder}"
            ) from None
    return DEFAULT_WEIGHTS if weights is None else local_path(weights)


def _class_names(stream: StreamingTSM, path: Path, labels: str | Path | None) -> tuple[str, ...]:
    num_class = stream.num_class
    if labels is not None:
        names = read_class_names(labels)
        if len(names) != num_class:
            raise InputError(f"{labels} has {len(names)} names, {path} {num_class} classes")
        return tuple(names)
    if stream.class_names is not None and len(stream.class_names) == num_class:
        return tuple(stream.class_names)
    if num_class == len(JESTER_CLASSES) and stream.options is not None and stream.options.dataset == "jester":
        return JESTER_CLASSES
    return tuple(f"class {index}" for index in range(num_class or 0))
