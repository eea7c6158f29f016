"""Commands of published figures, and the comparison with what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.common.errors import InputError
from pretrained import reproduce
from pretrained.table import find_row


def test_commands_of_a_row(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert reproduce.main(["something_tsm_resnet50_16f", "--folder", str(tmp_path), "--", "-j", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = f"python test_models.py something --weights={tmp_path}/{find_row('something_tsm_resnet50_16f').file}"
    assert lines == [
        "# TSM ResNet50 on something RGB, published: top-1 47.2 % (1 clip, centre crop, 16 segments)",
        f"{start} --test_segments=16 --test_crops=1 -j 2",
        "# TSM ResNet50 on something RGB, published: top-1 48.4 % (2 clips, 3 crops, full resolution, 16 segments)",
        f"{start} --test_segments=16 --twice_sample --test_crops=3 --full_res -j 2",
        "# first: python -m pretrained.fetch something_tsm_resnet50_16f",
    ]


def test_rows_and_protocols_without_a_figure() -> None:
    with pytest.raises(InputError, match="figures were published for efficient, accurate"):
        reproduce.main(["something_tsm_resnet50_16f", "--protocol", "dense"])
    with pytest.raises(InputError, match="figures were published for no protocol"):
        reproduce.main(["jester_tsm_mobilenetv2_online"])
    with pytest.raises(InputError, match="not its weights"):
        reproduce.main(["kinetics_tsm_resnext101_8f_dense"])
    with pytest.raises(InputError, match="not there yet"):
        reproduce.main(["something_tsm_resnet50_16f", "--run", "--folder", "/nowhere"])


@pytest.mark.parametrize(
    ("printed", "status", "said"),
    [
        (
            "Overall Prec@1 55.60% Prec@5 79.60%",
            0,
            "difference -0.10; top-5 79.60, published 79.5, difference +0.10: rep",
        ),
        ("Overall Prec@1 56.10% Prec@5 79.50%", 1, "top-1 56.10, published 55.7, difference +0.40"),
        ("Overall Prec@1 55.70% Prec@5 70.00%", 1, "NOT within 0.3"),
    ],
)
def test_run_compares(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    printed: str,
    status: int,
    said: str,
) -> None:
    (tmp_path / find_row("kinetics_tsm_resnet50_flow_8f").file).write_bytes(b"x")
    (tmp_path / "test_models.py").write_text(f"import sys; print(sys.argv[1:]); print('x {printed}')")
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    assert reproduce.main(["kinetics_tsm_resnet50_flow_8f", "--run", "--folder", str(tmp_path)]) == status
    out = capsys.readouterr().out
    assert said in out.splitlines()[-1] and "['kinetics', '--weights=" in out


@pytest.mark.parametrize(
    ("program", "match"),
    [("raise SystemExit(2)", "ended with status 2"), ("print('nothing')", "printed no")],
)
def test_run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, match: str) -> None:
    (tmp_path / "test_models.py").write_text(program)
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    with pytest.raises(InputError, match=match):
        reproduce.run_test(["x"])
