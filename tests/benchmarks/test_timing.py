"""The benchmarks' own arithmetic, and that the textbook shift they time is the shift."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from benchmarks import evaluate, shift, step, timing
from tests.network.test_shift_ops import loop_shift


def test_every_round_runs_every_case_and_each_case_follows_each() -> None:
    calls: list[str] = []
    cases = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = timing.interleave(cases, rounds=20, warmup=1)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 21
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {first + second for order in rounds for first, second in pairwise(order)} == {
        "ab", "ac", "ba", "bc", "ca", "cb",
    }  # fmt: skip
    assert {name: len(values) for name, values in times.items()} == {"a": 20, "b": 20, "c": 20}


def test_medians_and_ratios() -> None:
    times = {"slow": [2.0, 9.0, 3.0], "fast": [1.0, 3.0, 2.0]}
    assert timing.median_ms(times, "slow") == 3000.0
    assert timing.ratio(times, "slow", "fast") == 2.0  # of 2, 3 and 1.5


def test_table() -> None:
    assert timing.format_table(("a", "bc"), (("x", 1.5), ("yyy", 10))) == (
        "| a   |  bc |\n| --- | --: |\n| x   | 1.5 |\n| yyy |  10 |"
    )


def test_textbook_shift_is_the_shift() -> None:
    x = torch.randn(8, 16, 3, 3)
    assert torch.equal(shift.textbook_shift(x, 4), loop_shift(x, 4, 8))


def test_the_rows_of_the_step_benchmark_are_the_same_function() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 32, 32)
    nets = {kind: step.build("resnet18", kind, 8).eval() for kind in (step.TEXTBOOK, step.TSM, step.FLAT)}
    outs = {kind: net(x) for kind, net in nets.items()}
    assert torch.equal(outs[step.TEXTBOOK], outs[step.TSM])
    assert not torch.equal(outs[step.FLAT], outs[step.TSM])
    labels = torch.zeros(8, dtype=torch.long)
    saved = {kind: step.Step(net, x, labels).saved_bytes() for kind, net in nets.items()}
    assert saved[step.FLAT] == saved[step.TSM] < saved[step.TEXTBOOK]


@pytest.mark.parametrize(("module", "option"), [(shift, "--rounds"), (step, "--clips"), (evaluate, "--videos")])
def test_impossible_options(module, option, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        module.main([option, "0"])
    assert f"{option}: must be 1 or more, got 0" in capsys.readouterr().err
