"""The Python in README and docs does what the text says (docs/extend.md: tests/test_extend.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ops.checkpoint.file import save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.models import build_model
from ops.temporal_shift import TemporalShift
from tests.helpers import PROJECT, make_kinetics_tree
from tests.test_docs import blocks
from tools import draw_shift, model_info


def run_block(page: str, index: int, **names) -> dict:
    """Run a Python block of a page; its names."""
    exec(blocks(page, "python")[index], names)
    return names


def test_the_shift_of_the_readme():
    names = run_block("README.md", 0, torch=torch)
    x = torch.randn(6, 17, 2, 2)
    assert torch.equal(names["temporal_shift"](x, 3), TemporalShift.shift(x, 3, fold_div=8))
    assert len(blocks("README.md", "python")[0].splitlines()) == 7  # a name, and six lines


def test_streaming_as_in_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ModelOptions(dataset="mine", arch="resnet18", num_class=5, is_shift=True, online=True, input_size=32)
    model = build_model(options).eval()
    Path("checkpoint/NAME").mkdir(parents=True)
    save_checkpoint(
        {"state_dict": published_state_dict(model), "options": options.to_dict()}, "checkpoint/NAME/ckpt.best.pth.tar"
    )
    picture = np.random.RandomState(0).randint(0, 256, (60, 80, 3), dtype=np.uint8)
    names = run_block("README.md", 1, picture=picture)
    clip = names["frame"].expand(1, options.num_segments, -1, -1, -1)
    torch.testing.assert_close(names["scores"], model.frame_scores(clip)[:, 0], rtol=1e-4, atol=1e-5)


def test_a_script_written_for_the_published_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TSM_DATA_ROOT", raising=False)
    make_kinetics_tree(tmp_path / "data", 1)
    weights = torchvision.models.resnet50().state_dict()
    monkeypatch.setattr("ops.network.backbones.imagenet_state_dict", lambda arch: weights)
    clip, label = run_block("docs/published.md", 0)["dataset"][0]
    assert (clip.shape, clip.dtype, label) == ((24, 224, 224), torch.float32, 0)


def test_metadata_of_an_exported_file(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    shutil.copy(PROJECT / "online_demo" / "weights" / "moving_digits_online.onnx", tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    assert "moves_left" in run_block("docs/export.md", 0)["class_names"]


def test_a_classifier_on_features(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels = np.arange(40) % 2
    for name in ("train.npz", "test.npz"):
        np.savez(name, features=np.eye(2)[labels], labels=labels)
    run_block("docs/export.md", 1)
    assert capsys.readouterr().out == "1.0\n"


def test_figures_and_costs_are_drawn_and_counted(tmp_path, capsys):
    panels = {title: origin.tolist() for title, origin in draw_shift.panels().items()}
    both, online = panels["TSM: both directions"], panels["online TSM: from the past only"]
    assert both[0] == [2, 3, 4, 5, 0] and both[1] == online[0] == [0, 1, 2, 3, 4]
    assert all(row == [1, 2, 3, 4, 5] for row in [*panels["TSN: no shift"], *both[2:], *online[1:]])
    draw_shift.main([str(tmp_path / "shift.png")])
    assert (tmp_path / "shift.png").read_bytes()[:4] == b"\x89PNG"
    model_info.main(["resnet18", "--num_segments", "8", "--input_size", "40", "--num_class", "8"])
    assert "11,180,616" in capsys.readouterr().out  # as the README's table says
