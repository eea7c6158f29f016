"""What a checkpoint is of: the options that rebuild its network and data pipeline, and its file name.

Published checkpoints carry these options in their file name only; ours carry them inside as well.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.common.errors import InputError, is_one_line
from ops.common.modality import MODALITIES

CONSENSUS_TYPES = ("avg", "identity")
MAX_NAME_BYTES = 255  # of a file or folder name on every common file system

# A file from a stranger must not make us build a network that fills the memory.
_LARGEST = {
    "num_segments": 4096,
    "shift_div": 4096,
    "img_feature_dim": 65536,
    "new_length": 256,
    "input_size": 8192,
    "num_class": 1_000_000,
}
_EXTENSIONS = (".pth.tar", ".pth", ".pt", ".tar")
# Greedy data set, lazy architecture: `TSM_my_RGB_set_RGB_resnext50_32x4d_avg_...` is data set `my_RGB_set`.
_NAME = re.compile(
    r"TSM_(?P<dataset>.+)_(?P<modality>RGB|Flow|RGBDiff)_(?P<arch>.+?)"
    r"(?:_shift(?P<div>\d+)_(?P<place>[^_]+)(?P<online>_online)?)?(?P<tpool>_tpool)?"
    r"_(?P<consensus>avg|identity)_segment(?P<segments>\d+)_e(?P<epochs>\d+)(?P<flags>_.*)?"
)
# [_{pretrain}][_{lr_type}][_dense][_nl][_{suffix}], where the pretrain token is any word without underscores.
_FLAGS = re.compile(
    r"(?:_(?P<pretrain>(?!(?:cos|step|dense|nl)(?:_|$))[^_]+)(?=_(?:cos|step|dense|nl)(?:_|$)))?"
    r"(?:_(?P<lr>cos|step))?(?P<dense>_dense(?=_|$))?(?P<nl>_nl(?=_|$))?(?:_.*)?"
)
# Published under a name of its own: the streaming gesture model of the online demo.
_OTHER_NAMES: dict[str, dict[str, Any]] = {
    "mobilenetv2_jester_online": {
        "dataset": "jester",
        "arch": "mobilenetv2",
        "is_shift": True,
        "online": True,
        "num_class": 27,
        "flip": False,
        "dropout": 0.0,
    },
}


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Everything that rebuilds a network and the data pipeline it was trained with, as plain data.

    `new_length` (frames a segment) is 1 for RGB, 5 for Flow and RGBDiff unless given. None means "not recorded".
    `shift_div`, `shift_place` and `online` count only where `is_shift`.
    """

    dataset: str
    modality: str = "RGB"
    arch: str = "resnet50"
    num_segments: int = 8
    num_class: int | None = None
    consensus_type: str = "avg"
    is_shift: bool = False
    shift_div: int = 8
    shift_place: str = "blockres"
    online: bool = False
    temporal_pool: bool = False
    non_local: bool = False
    dropout: float = 0.5
    img_feature_dim: int = 256
    new_length: int | None = None
    input_size: int = 224
    dense_sample: bool = False
    image_tmpl: str | None = None
    class_names: list[str] | None = None
    flip: bool | None = None

    def __post_init__(self) -> None:
        if self.new_length is None:
            object.__setattr__(self, "new_length", 1 if self.modality == "RGB" else 5)
        for field in dataclasses.fields(self):
            self._check_type(field.name, field.type)
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= largest:
                raise InputError(f"option {name} must lie between 1 and {largest}, not {value}")
        if not 0 <= self.dropout <= 1:
            raise InputError(f"option dropout must lie between 0 and 1, not {self.dropout}")
        _check_choice("modality", self.modality, MODALITIES)
        _check_choice("consensus_type", self.consensus_type, CONSENSUS_TYPES)

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        kinds = kind.split(" | ")
        if value is None:
            good = "None" in kinds
        elif kinds[0] == "list[str]":
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif kinds[0] == "float":
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            good = type(value).__name__ == kinds[0]
        if not good:
            raise InputError(f"option {name} must be {kind}, not {type(value).__name__}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not is_one_line(text):
                raise InputError(f"option {name} holds control characters: {text[:100]!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint or JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelOptions:
        """Rebuild from plain data. Options that a newer version wrote are ignored, those missing take their default.

        Raises:
            InputError: not a dict, no data set, or a value of the wrong type or out of range.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"options must be a dict, not {type(data).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        if "dataset" not in values:
            raise InputError("options name no dataset")
        return cls(**values)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"option {name} must be one of {', '.join(choices)}, not {value!r}")


def store_name(
    options: ModelOptions, *, epochs: int, pretrain: str = "imagenet", lr_type: str = "step", suffix: str | None = None
) -> str:
    """Name of a run, as published, with `_online` after the shift for the shift from the past only.

    TSM_{dataset}_{modality}_{arch}[_shift{div}_{place}[_online]][_tpool]_{consensus}_segment{n}_e{epochs}
    then [_{pretrain}][_{lr_type}][_dense][_nl][_{suffix}]; pretrain `imagenet` and lr_type `step` are left out, and a
    file to start from gives its bare name. Example: TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.

    Raises:
        InputError: a part that cannot be in a file name, or a name too long for one.
    """
    tokens = ["TSM", options.dataset, options.modality, options.arch]
    if options.is_shift:
        tokens += [f"shift{options.shift_div}", options.shift_place]
        tokens += ["online"] if options.online else []
    tokens += ["tpool"] if options.temporal_pool else []
    tokens += [options.consensus_type, f"segment{options.num_segments}", f"e{epochs}"]
    tokens += [_pretrain_token(pretrain)] if pretrain != "imagenet" else []
    tokens += [lr_type] if lr_type != "step" else []
    tokens += ["dense"] if options.dense_sample else []
    tokens += ["nl"] if options.non_local else []
    tokens += [suffix] if suffix else []
    name = "_".join(tokens)
    if "/" in name or "\\" in name or not name.isprintable():
        raise InputError(f"{name!r} cannot name a run: leave slashes and control characters out of data set and suffix")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"the run's name is longer than {MAX_NAME_BYTES} bytes; give a shorter one (--store_name)")
    return name


def _pretrain_token(pretrain: str) -> str:
    """One word without underscores, so that the name can be read back: `runs/my_net.pth.tar` -> `my-net`."""
    stem = _stem(pretrain)
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", stem).strip("-.")[:40] or "none"


def _stem(path: str | Path) -> str:
    """File name without the extensions of checkpoints."""
    name = Path(path).name
    for extension in _EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name


def options_from_name(path: str | Path) -> ModelOptions:
    """Read a published file name; folders are never looked at. The number of classes is not part of a name.

    Raises:
        InputError: the name does not have the published form.
    """
    stem = _stem(path)
    if stem in _OTHER_NAMES:
        return ModelOptions(**_OTHER_NAMES[stem])
    match = _NAME.fullmatch(stem)
    if match is None:
        raise InputError(
            f"{path}: the file holds no options, and its name does not tell them; rename it to its published form, "
            "such as TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth"
        )
    flags = _FLAGS.fullmatch(match["flags"] or "")
    shift = {}
    if match["div"]:
        shift = {"is_shift": True, "shift_div": int(match["div"]), "shift_place": match["place"]}
    try:
        return ModelOptions(
            dataset=match["dataset"],
            modality=match["modality"],
            arch=match["arch"],
            num_segments=int(match["segments"]),
            consensus_type=match["consensus"],
            online=match["online"] is not None,
            temporal_pool=match["tpool"] is not None,
            dense_sample=flags["dense"] is not None,
            non_local=flags["nl"] is not None,
            **shift,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
