"""Meters, top-k accuracy, confusion matrices: values against the plainest form."""

from __future__ import annotations

import math

import pytest
import torch

from ops.common.metrics import confusion_matrix, mean_class_accuracy, num_correct, per_class_accuracy
from ops.utils import AverageMeter, accuracy


@pytest.mark.parametrize("make", [float, torch.tensor])
def test_meter_weighs_each_value_by_its_count(make):
    meter = AverageMeter()
    meter.update(make(1.0), 3)
    meter.update(make(5.0), 1)
    assert (meter.val, meter.sum, meter.avg, meter.count) == (5.0, 8.0, 2.0, 4)


def test_empty_meter_is_zero():
    assert AverageMeter().avg == 0.0


def test_meter_goes_on_from_its_state():
    meter = AverageMeter()
    meter.update(torch.tensor(1.5), 2)
    other = AverageMeter()
    other.load_state_dict(meter.state_dict())
    for one in (meter, other):
        one.update(torch.tensor(0.1), 7)
    assert meter.state_dict() == other.state_dict()


def test_accuracy_example():
    assert [float(v) for v in accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))] == [50.0]


def test_topk_equals_sorting():
    torch.manual_seed(0)
    scores, target = torch.randn(50, 9), torch.randint(9, (50,))
    for k, value in zip((1, 2, 5), accuracy(scores, target, (1, 2, 5)), strict=True):
        hits = sum(
            int(t) in sorted(range(9), key=lambda c: -row[c])[:k]
            for row, t in zip(scores.tolist(), target, strict=True)
        )
        assert float(value) == pytest.approx(100 * hits / 50)


def test_topk_beyond_the_classes_is_everything():
    counts = num_correct(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), (1, 5))
    assert int(counts[1]) == 4


def test_confusion_has_true_classes_in_rows():
    matrix = confusion_matrix(torch.tensor([1, 1, 0, 2]), torch.tensor([0, 1, 0, 2]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    shares = per_class_accuracy(matrix).tolist()
    assert shares[:3] == [0.5, 1.0, 1.0] and math.isnan(shares[3])
    assert mean_class_accuracy(matrix) == pytest.approx(100 * 2.5 / 3)  # the class that never occurs does not count
