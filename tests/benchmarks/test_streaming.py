"""The streaming benchmark: turns, agreement, and one small run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.streaming import EAGER, UNCOUNTED, Case, clip_step, main, make_rows, run_rounds
from ops.checkpoint.file import save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.models import TSN, build_model


def test_cases_take_turns_on_the_same_frames() -> None:
    calls: list[tuple[str, int]] = []

    def step(name: str, offset: float):
        def run(frame: np.ndarray) -> np.ndarray:
            calls.append((name, int(frame[0])))
            return np.array([4.0 + offset, 1.0])

        return run

    cases = [Case("a", step("a", 0)), Case("b", step("b", 1)), Case("c", step("c", -4))]
    run_rounds(cases, np.arange(10)[:, None], turn=5)
    first, second = list(range(5)), list(range(5, 10))
    assert calls == [(n, i) for n in "abc" for i in first] + [(n, i) for n in "bca" for i in second]
    assert [len(case.seconds) for case in cases] == [2 * (5 - UNCOUNTED)] * 3
    assert [case.worst for case in cases] == [0, 0.25, 1]
    assert [case.same_best for case in cases] == [10, 10, 0]


def test_speed_is_against_eager_and_against_the_clip() -> None:
    cases = [Case(EAGER, len, seconds=[0.02]), Case("clip", len, False, [0.16]), Case("fast", len, True, [0.005])]
    rows = {row[0]: row[1:5] for row in make_rows(cases, 1)}
    assert rows["fast"] == ["5.00", "5.00", "4.00x", "32.0x"]
    assert rows[EAGER][3] == "8.0x"


def test_the_clip_again_ends_with_the_newest_frame() -> None:
    options = {"pretrain": "none", "is_shift": True, "online": True, "print_spec": False, "partial_bn": False}
    torch.manual_seed(0)
    model = TSN(3, 4, "RGB", base_model="resnet18", **options).eval()
    torch.nn.init.normal_(model.classifier.weight)
    frames = torch.randn(6, 1, 3, 32, 32)
    again = clip_step(model)
    for frame in frames:
        scores = again(frame.numpy())
    with torch.no_grad():
        wanted = model.frame_scores(frames[2:].transpose(0, 1))[0, -1]
    np.testing.assert_allclose(scores, wanted.numpy(), rtol=1e-5)


def test_a_small_run(tmp_path: Path, capsys) -> None:
    options = ModelOptions("mine", arch="resnet18", num_class=3, input_size=32, is_shift=True, online=True)
    model = build_model(options, partial_bn=False)
    path = tmp_path / "mine.pth.tar"
    save_checkpoint({"state_dict": published_state_dict(model), "options": options.to_dict()}, path)
    threads = torch.get_num_threads()
    try:
        main(["--weights", str(path), "--backends", "torch", "--quick", "--threads", "1", "--here"])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "A frame of 32x32, 1 thread" in out
    assert "torch, BatchNorm folded" in out and "10/10" in out


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--turn", str(UNCOUNTED)], ["--threads", "0"]], ids=str)
def test_options_that_measure_nothing_are_refused(argv: list[str], capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "or more, got" in capsys.readouterr().err
