"""A trained network with its pipeline: from a checkpoint to the scores of a video.

A view is one crop of one clip; a video's scores are the mean over its views.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops.checkpoint.file import Checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import load_into
from ops.common.errors import InputError, counted
from ops.data.sampling import num_test_clips
from ops.dataset import TSNDataSet
from ops.dataset_config import DATASETS, DatasetPaths
from ops.models import TSN, build_model
from ops.network.runtime import autocast, compile_errors, fold_batchnorm, to_channels_last
from ops.transforms import ClipNormalize, test_transform

logger = logging.getLogger(__name__)

TSN_TEST_SEGMENTS = 25  # arXiv:1608.00859, sec. 5.1
# Frames that pass through a net at once: enough to keep the device busy, few enough for its caches and memory.
_FRAMES_A_PASS = {"cpu": 32, "cuda": 128}


@dataclass(frozen=True)
class Views:
    """How often a video is looked at: crops of each frame x clips of frames.

    num_crops: 1, 3, 5 or 10. dense: 10 clips of 64 frames' span. twice: 2 uniform clips. full_res: crops of the whole
    short side (256 pixels for a net of 224).
    """

    num_crops: int = 1
    dense: bool = False
    twice: bool = False
    full_res: bool = False

    @property
    def num_clips(self) -> int:
        return num_test_clips(dense=self.dense, twice=self.twice)

    @property
    def count(self) -> int:
        return self.num_crops * self.num_clips

    def __str__(self) -> str:
        clips = "10 dense clips" if self.dense else "2 clips" if self.twice else "1 clip"
        return f"{clips} x {counted(self.num_crops, 'crop')}{', full resolution' if self.full_res else ''}"


PROTOCOLS = {
    "efficient": Views(),
    "accurate": Views(num_crops=3, twice=True, full_res=True),
    "dense": Views(num_crops=3, dense=True, full_res=True),
}


def choose_views(protocol: str | None, *, num_crops: int | None, dense: bool, twice: bool, full_res: bool) -> Views:
    """The views that a protocol or single options ask for; `num_crops` None is "not given".

    Raises:
        InputError: options that contradict the protocol or each other.
    """
    if dense and twice:
        raise InputError("--dense_sample and --twice_sample exclude each other: choose one")
    if protocol is None:
        return Views(num_crops or 1, dense, twice, full_res)
    views = PROTOCOLS[protocol]
    given = {"--dense_sample": (dense, views.dense), "--twice_sample": (twice, views.twice)}
    given["--full_res"] = (full_res, views.full_res)
    odd = [option for option, (asked, has) in given.items() if asked and not has]
    if num_crops not in (None, views.num_crops):
        odd.append(f"--test_crops {num_crops}")
    if odd:
        raise InputError(f"--protocol {protocol} is {views}: it contradicts {' '.join(odd)}; leave one of them out")
    return views


@dataclass(frozen=True)
class Runtime:
    """Where and how nets compute. `devices`: CUDA devices to share passes over, if there are several."""

    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    devices: tuple[int, ...] = ()
    amp: str = "none"
    compile: bool = False
    channels_last: bool = True


class Net:
    """A trained network with its pipeline: sampling, crops, normalisation, scores.

    Attributes:
        name: where the weights come from.
        options: what network it is; `num_segments` and `input_size` are those of the evaluation.
        num_class: number of scores.
        frame_length: frames to read for each segment's start.
    """

    def __init__(self, name: str, model: nn.Module, options: ModelOptions, views: Views, runtime: Runtime) -> None:
        self.name = name
        self.options = options
        self.num_class: int = model.num_class
        self.views = views
        self._runtime = runtime
        self._crop_size = model.scale_size if views.full_res else model.input_size
        self._scale_size = model.scale_size
        self._normalize = ClipNormalize(**model.normalization, channels_last=runtime.channels_last)
        self._model = _prepare(model, runtime)

    def __str__(self) -> str:
        o = self.options
        kind = f"TSM 1/{o.shift_div} {o.shift_place}{' online' if o.online else ''}" if o.is_shift else "TSN"
        extras = "".join(f" + {text}" for text, on in (("non-local", o.non_local), ("tpool", o.temporal_pool)) if on)
        return (
            f"{kind}{extras}, {o.arch}, {o.modality}, {counted(o.num_segments, 'segment')},"
            f" {self.views}, {self._crop_size}x{self._crop_size} pixels"
        )

    @property
    def frame_length(self) -> int:
        return self.options.new_length + (self.options.modality == "RGBDiff")

    @property
    def transform(self) -> Callable[..., Tensor]:
        """Frames -> uint8 clip of every crop, as `ops.dataset.load_clip` calls it."""
        return test_transform(self._crop_size, self._scale_size, self.views.num_crops)

    def dataset(self, paths: DatasetPaths, **options: Any) -> TSNDataSet:
        """The test set, `paths.val_list`, as this net looks at it; `options` go to TSNDataSet."""
        return TSNDataSet(
            paths.root_path,
            paths.val_list,
            num_segments=self.options.num_segments,
            new_length=self.options.new_length,
            modality=self.options.modality,
            image_tmpl=paths.image_tmpl,
            transform=self.transform,
            random_shift=False,
            test_mode=True,
            dense_sample=self.views.dense,
            twice_sample=self.views.twice,
            **{"num_class": self.num_class, **options},
        )

    def scores(self, clips: Tensor) -> Tensor:
        """Mean scores over the views.

        Args:
            clips: uint8 (N, crops*clips*T*L, C, H, W) or, flattened, (N, crops*clips*T*L*C, H, W); crops outermost.

        Returns:
            float32 (N, K) on the CPU.
        """
        scores = self._run(clips, self._model)
        scores = scores.mean(dim=2) if scores.dim() == 4 else scores  # consensus 'identity' keeps T
        return scores.mean(dim=1).cpu()

    def features(self, clips: Tensor) -> Tensor:
        """Pooled features before the classifier: clips as in `scores` -> float32 (N, crops*clips, T', D) on the CPU.

        T' is T, or half of it after temporal_pool.
        """
        return self._run(clips, getattr(self._model, "module", self._model).features).cpu()

    @torch.no_grad()
    def _run(self, clips: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """`run` on every view of every video, in passes: clips as in `scores` -> (N, crops*clips, ...)."""
        num_videos, num_views = len(clips), self.views.count
        clips = clips.reshape(num_videos * num_views, -1, *clips.shape[2:])  # (N*V, T*L, C, H, W)
        size = pass_size(len(clips), self.options.num_segments, self._runtime)
        parts = []
        for part in clips.split(size):
            part = self._normalize(part.to(self._runtime.device, non_blocking=True))
            with autocast(self._runtime.device, self._runtime.amp), compile_errors(self._runtime.compile):
                parts.append(run(part).float())
        return torch.cat(parts).unflatten(0, (num_videos, num_views))


def pass_size(num_clips: int, num_segments: int, runtime: Runtime) -> int:
    """Clips to put through a net at once: equal passes where possible (a compiled net is compiled for one size).

    Example: 30 clips of 8 frames on a CPU go as 10 passes of 3.
    """
    limit = max(1, _FRAMES_A_PASS.get(runtime.device.type, 32) * max(1, len(runtime.devices)) // num_segments)
    if num_clips <= limit:
        return num_clips
    return next((size for size in range(limit, limit // 2, -1) if num_clips % size == 0), limit)


def _prepare(model: nn.Module, runtime: Runtime) -> nn.Module:
    """The network as it computes fastest: BN folded, channels_last, compiled where asked, on its device(s)."""
    model.eval().requires_grad_(False)
    fold_batchnorm(model)
    model.to(runtime.device)
    if runtime.channels_last:
        to_channels_last(model)
    if runtime.compile:
        # Freezing lays the weights out for the kernels; shapes are those of the passes.
        return torch.compile(model, dynamic=False, options={"freezing": True})
    if len(runtime.devices) > 1:
        return nn.DataParallel(model, device_ids=list(runtime.devices))
    return model


def load_net(
    checkpoint: Checkpoint,
    *,
    views: Views,
    runtime: Runtime,
    num_segments: int | None = None,
    input_size: int | None = None,
    num_class: int | None = None,
) -> Net:
    """The network of `load_model` with its pipeline."""
    model, options = load_model(checkpoint, num_segments=num_segments, input_size=input_size, num_class=num_class)
    return Net(str(checkpoint.path), model, options, views, runtime)


def load_model(
    checkpoint: Checkpoint,
    *,
    num_segments: int | None = None,
    input_size: int | None = None,
    num_class: int | None = None,
) -> tuple[TSN, ModelOptions]:
    """Build the network that a checkpoint's options (or its file name) describe, with its weights.

    Args:
        num_segments, input_size: default the checkpoint's own; the options returned are with these.
        num_class: what the data set has; None takes the checkpoint's.

    Raises:
        InputError: options not known, weights that do not fit, or another number of classes.
    """
    path = str(checkpoint.path)
    options = checkpoint.options
    trained_segments = options.num_segments
    if checkpoint.num_class is None:
        raise InputError(f"{path}: holds no classifier (new_fc or fc), only a backbone: train it first (--tune_from)")
    if num_class not in (None, checkpoint.num_class):
        raise InputError(
            f"{path} knows {counted(checkpoint.num_class, 'class', 'classes')}, the data set has {num_class}:"
            f" evaluate it on what it was trained on ({options.dataset}), or say --num_class {checkpoint.num_class}"
        )
    changes = {"num_segments": num_segments, "input_size": input_size}
    options = dataclasses.replace(options, **{name: value for name, value in changes.items() if value is not None})
    if (options.is_shift or options.temporal_pool) and options.num_segments != trained_segments:
        logger.warning(
            "%s was trained with %s and is tested with %d: --test_segments %d is what its shift learned",
            path, counted(trained_segments, "segment"), options.num_segments, trained_segments,
        )  # fmt: skip
    model = build_model(options, num_class=checkpoint.num_class, partial_bn=False)
    logger.info("%s", load_into(model, checkpoint))
    return model, options


def default_test_segments(options: ModelOptions) -> int:
    """Frames of a test clip where none are given: what the shift learned, or TSN's published 25."""
    return options.num_segments if options.is_shift or options.temporal_pool else TSN_TEST_SEGMENTS


def default_num_class(dataset: str, checkpoint: Checkpoint) -> int | None:
    """Classes of a data set that has no row in the table: the checkpoint's."""
    return None if dataset in DATASETS else checkpoint.num_class
