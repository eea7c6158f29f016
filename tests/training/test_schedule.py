"""Learning rates against SPEC's formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch

from ops.training.schedule import Schedule, scaled_lr, set_learning_rate


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.02), (19, 0.02), (20, 0.002), (39, 0.002), (40, 0.0002), (49, 0.0002)]
)
def test_step_divides_by_ten_at_each_step(epoch, expected):
    assert Schedule(0.02, "step", (20, 40), 50).epoch_lr(epoch) == pytest.approx(expected)


def test_a_step_may_be_a_fraction_and_all_steps_count():
    schedule = Schedule(1.0, "step", (12.5, 10), 50)
    assert [schedule.epoch_lr(e) for e in (9, 10, 12, 13)] == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("epoch", "cosine"), [(0, 1.0), (10, math.sqrt(0.5)), (20, 0.0), (30, -math.sqrt(0.5))])
def test_cosine(epoch, cosine):
    assert Schedule(0.02, "cos", (), 40).epoch_lr(epoch) == pytest.approx(0.01 * (1 + cosine))


def test_unknown_type_names_the_choices():
    with pytest.raises(ValueError, match="step or cos"):
        Schedule(0.1, "poly").epoch_lr(0)


def test_warmup_rises_by_equal_steps_to_the_full_rate():
    schedule = Schedule(0.8, "step", (50,), 100, warmup_epochs=2)
    rates = [schedule.step_lr(epoch, step, 4) for epoch in range(3) for step in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8])


def test_without_warmup_the_rate_is_the_epoch_s_own():
    assert Schedule(0.02, "cos", (), 50).step_lr(7, 3, 100) == Schedule(0.02, "cos", (), 50).epoch_lr(7)


@pytest.mark.parametrize(
    ("batch", "base", "expected"), [(128, None, 0.02), (512, 128, 0.08), (64, 128, 0.01), (128, 128, 0.02)]
)
def test_auto_lr_is_linear(batch, base, expected):
    assert scaled_lr(0.02, batch, base) == pytest.approx(expected)


def test_each_group_gets_its_multiples():
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [a], "lr_mult": 5, "decay_mult": 1}, {"params": [b], "lr_mult": 10, "decay_mult": 0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, weight_decay=1.0)
    set_learning_rate(optimizer, 0.01, 5e-4)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.1])
    assert [g["weight_decay"] for g in optimizer.param_groups] == pytest.approx([5e-4, 0.0])
