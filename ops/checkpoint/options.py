"""The options that rebuild a checkpoint's network and data pipeline, and its run's name, which holds most of them.

Published checkpoints carry these options in their name only, the file's or, as training writes it, the folder's
(`checkpoint/TSM_.../ckpt.best.pth.tar`); ours carry them inside as well.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.common.errors import InputError
from ops.common.modality import check_modality, default_new_length

CONSENSUS_TYPES = ("avg", "identity")
MAX_NAME_BYTES = 255  # of a file or folder name on every common file system
_PIPELINE = ("dataset", "dense_sample", "image_tmpl", "class_names", "flip", "frame_rate")  # not TSN's
_COUNTS = ("num_segments", "num_class", "shift_div", "new_length", "input_size")
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
_STREAMING_NAME = "mobilenetv2_jester_online"


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Everything that rebuilds a network and the data pipeline it was trained with, as plain data.

    `new_length` (frames a segment) is 1 for RGB, 5 for Flow and RGBDiff unless given. None means "not recorded".
    `shift_div`, `shift_place` and `online` count only where `is_shift`. `frame_rate`: frames a second, by the videos'
    own clock, that a training clip takes.
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
    new_length: int | None = None
    input_size: int = 224
    dense_sample: bool = False
    image_tmpl: str | None = None
    class_names: list[str] | None = None
    flip: bool | None = None
    frame_rate: float | None = None

    def __post_init__(self) -> None:
        if self.new_length is None:
            object.__setattr__(self, "new_length", default_new_length(self.modality))
        check_modality(self.modality)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"option {name} must be a whole number of 1 or more, not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint or JSON."""
        return dataclasses.asdict(self)

    def tsn_arguments(self) -> dict[str, Any]:
        """The arguments of `ops.models.TSN` among them."""
        arguments = self.to_dict()
        for name in _PIPELINE:
            del arguments[name]
        return {"base_model": arguments.pop("arch"), **arguments}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelOptions:
        """Rebuild from plain data. Options that are not known are ignored, those missing get their default.

        Raises:
            InputError: not a dict with a data set, or a value out of range.
        """
        if not isinstance(data, Mapping) or "dataset" not in data:
            raise InputError("options must be a dict, and name the data set")
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


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
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", _stem(pretrain)).strip("-.")[:40] or "none"


def _stem(path: str | Path) -> str:
    """File name without the extensions of checkpoints."""
    name = Path(path).name
    for extension in _EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name


def options_from_name(path: str | Path) -> ModelOptions:
    """Read the published name of a file or, where it has another, of the folder it lies in.

    The number of classes is not part of a name.

    Raises:
        InputError: neither name has the published form.
    """
    stem = _stem(path)
    if stem == _STREAMING_NAME:
        return ModelOptions(
            "jester", arch="mobilenetv2", num_class=27, is_shift=True, online=True, flip=False, dropout=0.0
        )
    match = _NAME.fullmatch(stem) or _NAME.fullmatch(Path(path).absolute().parent.name)
    if match is None:
        raise InputError(
            f"{path}: the file holds no options, nor does its name or its folder's; rename it to its published form, "
            "such as TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth"
        )
    flags = _FLAGS.fullmatch(match["flags"] or "")
    try:
        return ModelOptions(
            dataset=match["dataset"],
            modality=match["modality"],
            arch=match["arch"],
            num_segments=int(match["segments"]),
            consensus_type=match["consensus"],
            is_shift=match["div"] is not None,
            shift_div=int(match["div"] or 8),
            shift_place=match["place"] or "blockres",
            online=match["online"] is not None,
            temporal_pool=match["tpool"] is not None,
            dense_sample=flags["dense"] is not None,
            non_local=flags["nl"] is not None,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
