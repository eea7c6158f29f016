"""The evaluation benchmarks run, and compare like with like (`check_same` raises otherwise)."""

import torch

from benchmarks import evaluate
from ops.temporal_shift import TemporalShift


def test_evaluate_prints_a_row_for_each_program(capsys):
    small = "--arch resnet18 --segments 2 --size 32 --frames 6 --videos 1 --rounds 1 --workers 0 --threads 1"
    evaluate.main(small.split())
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == [evaluate.TEXTBOOK, evaluate.OURS]
    assert table[2].split("|")[-3].strip() == "1.00x"


def test_the_textbook_net_has_no_shift_of_ours():
    options = evaluate.shift_options("resnet18", 2, 32)
    model = evaluate.build_model(options).eval()
    textbook = evaluate.textbook_net(model)
    assert not any(isinstance(module, TemporalShift) for module in textbook.modules())
    clip = torch.randn(2, 6, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(textbook(clip), model(clip))
