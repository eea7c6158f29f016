"""The network that the demo runs: an .onnx file, or any online checkpoint (which needs PyTorch)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from online_demo.backends.cache import cached_file, versions
from online_demo.network import NetworkInfo
from online_demo.onnx_file import check_torch, describe_session, open_session
from ops.common.class_names import read_class_names
from ops.common.errors import InputError
from pretrained.table import files_folder, find_row, local_path

if TYPE_CHECKING:
    from ops.streaming import StreamingTSM

FOLDER = Path(__file__).resolve().parent
DEFAULT_WEIGHTS = FOLDER / "weights" / "moving_digits_online.onnx"  # scripts/train_tsm_moving_digits_online.sh
JESTER_ROW = "jester_tsm_mobilenetv2_online"


@dataclass(frozen=True)
class DemoModel:
    """A streaming network.

    path: the file it comes from. digest: sha256 of that file. session: ONNX Runtime's, None where PyTorch read it.
    """

    path: Path
    digest: str
    info: NetworkInfo
    session: Any = None

    @functools.cached_property
    def stream(self) -> StreamingTSM:
        """The network in PyTorch, BatchNorm folded."""
        check_torch()
        from online_demo.torch_network import load_stream

        return load_stream(self.path)

    @functools.cached_property
    def onnx_path(self) -> Path:
        """Its .onnx file: exported once, and then taken from the cache."""
        return exported(self.path, self.digest)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.info.class_names

    @property
    def stem(self) -> str:
        """Beginning of the names of files made from it."""
        return self.path.name.split(".")[0]

    @property
    def identity(self) -> dict[str, object]:
        """What files made from it depend on."""
        return {"weights": self.digest, "size": self.info.input_size}


def load_model(
    weights: str | Path | None = None,
    *,
    jester: bool = False,
    labels: str | Path | None = None,
    with_torch: bool = False,
    threads: int | None = None,
) -> DemoModel:
    """Load what `--weights`, `--jester` and `--labels` ask for.

    Args:
        weights: an .onnx file of `online_demo.compile`, an online checkpoint of ours, the published streaming file, or
            a name in the table of published checkpoints; None takes the small one of the repository, trained on the
            moving digits.
        jester: the published gesture network, fetched if it is not there yet.
        labels: class names, one a line, in place of those recorded in the checkpoint.
        with_torch: read a checkpoint with PyTorch, in place of the .onnx file that is exported from it once.
        threads: of ONNX Runtime; None leaves it to it.

    Raises:
        InputError: no such file, a network that cannot stream, or another number of names than classes.
    """
    path = _find_weights(weights, jester=jester)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    session = None
    if with_torch and path.suffix != ".onnx":
        check_torch()
        from online_demo.torch_network import describe_stream, load_stream

        info = describe_stream(load_stream(path))
    else:
        onnx_path = exported(path, digest)
        session = open_session(onnx_path, threads)
        info = describe_session(session, onnx_path)
    if labels is not None:
        names = read_class_names(labels, len(info.class_names))
        info = dataclasses.replace(info, class_names=tuple(names))
    return DemoModel(path, digest, info, session)


def exported(path: Path, digest: str) -> Path:
    """The .onnx file of a checkpoint: exported and compared with PyTorch once, and then taken from the cache."""
    if path.suffix == ".onnx":
        return path

    def export(out: Path) -> None:
        check_torch()
        from online_demo.torch_network import describe_stream, load_stream, write_onnx

        stream = load_stream(path)
        write_onnx(stream, describe_stream(stream), out)

    depends_on = {"kind": "onnx", "weights": digest, "versions": versions("torch", "onnx", "onnxscript")}
    return cached_file(path.name.split(".")[0], ".onnx", depends_on, export)


def _find_weights(weights: str | Path | None, *, jester: bool) -> Path:
    if not jester:
        return DEFAULT_WEIGHTS if weights is None else local_path(weights)
    if weights is not None:
        raise InputError("--jester and --weights exclude each other: give one of them")
    folder = files_folder()
    row = find_row(JESTER_ROW)
    if (folder / row.file).is_file():
        return local_path(folder / row.file)
    try:
        from pretrained.fetch import fetch  # imports PyTorch

        folder.mkdir(parents=True, exist_ok=True)
        return fetch(row, folder)
    except (InputError, OSError, ImportError) as error:
        raise InputError(
            f"--jester: {error}; run python -m pretrained.fetch {JESTER_ROW} with its own options, or put the file "
            f"into {folder}"
        ) from None
