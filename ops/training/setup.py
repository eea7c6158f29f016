"""What a training run is made of: seeded generators, checked data sets, a network with its first weights."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ops.checkpoint.file import Checkpoint, ModelOptions, load_for_finetune, load_into
from ops.common.distributed import Process, parallel
from ops.common.errors import InputError
from ops.dataset import TSNDataSet, quick_check
from ops.dataset_configs import DatasetPaths
from ops.models import TSN, build_model
from ops.training.resume import check_same_network
from ops.transforms import train_transform, val_transform

logger = logging.getLogger(__name__)


def set_up_torch(seed: int, *, deterministic: bool) -> None:
    """Seed every random generator, and choose between the quickest kernels and those that always give the same."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def open_dataset(
    data: DatasetPaths,
    options: ModelOptions,
    *,
    training: bool,
    io: str = "frames",
    image_backend: str = "torchvision",
    seed: int = 0,
    allow_outside: bool = False,
    on_error: str = "raise",
) -> TSNDataSet:
    """Training or validation set, after a quick look at whether its files are there.

    Args:
        on_error: 'raise', or 'skip' to only warn of files that are not there.

    Raises:
        InputError: no list, a wrong one, or (unless skipped) a video that is not as listed.
    """
    size = options.input_size
    transform = (
        train_transform(size, options.modality, options.flip) if training else val_transform(size, size * 256 // 224)
    )
    list_file = data.train_list if training else data.val_list
    if list_file is None:
        raise InputError(f"data set {data.name}: give --train_list and --val_list")
    chosen = TSNDataSet(
        data.root_path,
        list_file,
        num_segments=options.num_segments,
        new_length=options.new_length,
        modality=options.modality,
        image_tmpl=data.image_tmpl,
        transform=transform,
        random_shift=training,
        dense_sample=options.dense_sample,
        io=io,
        image_backend=image_backend,
        num_class=options.num_class,
        seed=seed,
        allow_outside=allow_outside,
    )
    try:
        quick_check(chosen)
    except InputError as error:
        if on_error == "raise":
            raise
        logger.warning("Warning: %s", error)
    return chosen


def build_network(
    options: ModelOptions,
    resumed: Checkpoint | None,
    tuned: Checkpoint | None,
    *,
    pretrain: str,
    partial_bn: bool,
    fc_lr5: bool,
    verbose: bool,
) -> TSN:
    """The network with its first weights: of the checkpoint that is resumed or fine-tuned, else of `pretrain`."""
    has_weights = resumed is not None or tuned is not None
    model = build_model(
        options,
        pretrain="none" if has_weights else pretrain,
        partial_bn=partial_bn,
        fc_lr5=fc_lr5,
        print_spec=verbose,
    )
    if resumed is not None:
        check_same_network(resumed, options.to_dict())
        logger.info("%s", load_into(model, resumed))
    elif tuned is not None:
        logger.info("%s", load_for_finetune(model, tuned, dataset=options.dataset, num_class=options.num_class))
    return model


@dataclass(frozen=True)
class Networks:
    """One network, as saved and as wrapped for its two uses."""

    bare: nn.Module
    training: nn.Module
    evaluation: nn.Module

    @classmethod
    def wrap(cls, model: nn.Module, process: Process, *, compiled: bool = False) -> Networks:
        """Share a network, on its device already, out over all devices of the job; `compiled`: by torch.compile."""
        model.train()  # freezes what partial BN freezes, before DDP looks at what there is to exchange
        training = parallel(model, process)
        # DDP's processes must take equally many steps, and their shares of the validation videos may differ by one.
        evaluation = model if process.world_size > 1 else training
        if compiled:
            training, evaluation = torch.compile(training), torch.compile(evaluation)
        return cls(model, training, evaluation)
