"""Settings: warnings at their own mistake and at no published command; what a resumed run must share."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from ops.checkpoint.options import ModelOptions
from ops.common.distributed import Process
from ops.training.schedule import Schedule
from ops.training.settings import Settings, training_advice

OPTIONS = ModelOptions(
    dataset="kinetics", modality="RGB", arch="resnet50", num_segments=8, num_class=400, is_shift=True
)
# python main.py kinetics RGB --arch resnet50 --lr 0.02 --batch-size 128 --npb --shift ... on 8 GPUs
PUBLISHED = Settings(OPTIONS, Schedule(0.02, lr_steps=[20, 40], epochs=50), partial_bn=False)


def gpus(number: int) -> Process:
    return Process(world_size=number, device=torch.device("cuda", 0))


def test_nothing_to_say_about_the_published_command():
    assert training_advice(PUBLISHED, gpus(8)) == []


@pytest.mark.parametrize(
    ("process", "options", "words"),
    [
        (gpus(32), {}, "each batch norm sees 4 clips at a time.*--sync_bn or no --npb"),
        (
            Process(devices=tuple(range(32))),
            {"sync_bn": True},
            "sees 4 clips at a time.*a larger --batch-size or no --npb",
        ),
        (gpus(8), {"accum_steps": 4}, "each batch norm sees 4 clips"),
        (gpus(8), {"accum_steps": 999}, "each batch norm sees 1 clip at"),
        (
            gpus(128),
            {"sync_bn": True, "batch_size": 4, "schedule": Schedule(0.001)},
            "sees 4 clips.*larger --batch-size or no",
        ),
        (gpus(8), {"pretrain": "none", "partial_bn": True}, "use --npb to train from scratch"),
        (gpus(8), {"schedule": Schedule(0.5)}, "25 times the published rate for batches of 128, 0.02"),
    ],
)
def test_one_line_for_each_mistake(process, options, words):
    (line,) = training_advice(dataclasses.replace(PUBLISHED, **options), process)
    assert re.search(words, line)


@pytest.mark.parametrize(
    ("process", "options"),
    [
        (gpus(32), {"sync_bn": True}),
        (gpus(32), {"partial_bn": True}),
        (gpus(8), {"schedule": Schedule(0.08), "batch_size": 512}),
        (gpus(8), {"pretrain": "none", "tune_from": "a.pth", "partial_bn": True}),
    ],
)
def test_what_is_fine_is_not_mentioned(process, options):
    assert training_advice(dataclasses.replace(PUBLISHED, **options), process) == []
