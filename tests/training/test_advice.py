"""Warnings: each at its own mistake, none for a published command."""

from __future__ import annotations

import re

import pytest

from ops.training.advice import training_advice

# python main.py kinetics RGB --arch resnet50 --lr 0.02 --batch-size 128 --npb --shift ... on 8 GPUs
PUBLISHED = {
    "dataset": "kinetics",
    "is_shift": True,
    "from_scratch": False,
    "partial_bn": False,
    "sync_bn": False,
    "batch_size": 128,
    "num_devices": 8,
    "accum_steps": 1,
    "can_sync": True,
    "num_train": 240_000,
    "lr": 0.02,
    "lr_type": "step",
    "lr_steps": [20, 40],
    "epochs": 50,
    "warmup_epochs": 0,
}


def test_nothing_to_say_about_the_published_command():
    assert training_advice(**PUBLISHED) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_devices": 32}, "each batch norm sees 4 clips at a time.*--sync_bn or no --npb"),
        (
            {"num_devices": 32, "sync_bn": True, "can_sync": False},
            "sees 4 clips at a time.*a larger --batch-size or no --npb",
        ),
        ({"accum_steps": 4}, "each batch norm sees 4 clips"),
        ({"accum_steps": 999}, "each batch norm sees 1 clip at"),
        (
            {"num_devices": 128, "sync_bn": True, "batch_size": 4, "lr": 0.001},
            "sees 4 clips.*larger --batch-size or no",
        ),
        ({"from_scratch": True, "partial_bn": True}, "use --npb to train from scratch"),
        ({"dataset": "somethingv2", "is_shift": False}, "without --shift this is TSN"),
        ({"lr": 0.5}, "25 times the published rate for batches of 128, 0.02"),
        ({"lr_steps": [50, 100]}, "never drops: --lr_steps begin at 50, --epochs is 50"),
        ({"warmup_epochs": 50}, "only rises"),
        ({"num_train": 100}, "more than the 100 training videos"),
    ],
)
def test_one_line_for_each_mistake(options, words):
    (line,) = training_advice(**{**PUBLISHED, **options})
    assert re.search(words, line)


@pytest.mark.parametrize(
    "options",
    [
        {"num_devices": 32, "sync_bn": True},
        {"num_devices": 32, "partial_bn": True},
        {"lr": 0.08, "batch_size": 512},
        {"lr_type": "cos", "lr_steps": [50, 100]},
        {"is_shift": False},
    ],
)
def test_what_is_fine_is_not_mentioned(options):
    assert training_advice(**{**PUBLISHED, **options}) == []
