"""The one file that boards run: what it holds, and that PyTorch reads it back."""

import numpy as np
import pytest
import torch

from online_demo import compile as compile_command
from online_demo.backends.base import compare
from online_demo.backends.onnx_backend import OnnxRuntimeBackend
from online_demo.backends.torch_backend import TorchBackend
from online_demo.model import DEFAULT_WEIGHTS, load_model
from online_demo.network import FRAME_RATE, THRESHOLD
from ops.common.errors import InputError
from tests.online_demo.helpers import CLASS_NAMES, save_random

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def half(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "half.onnx"
    options = ["--half", "--rate", "7.5", "--threshold", "0.7"]
    compile_command.main(["--weights", str(pictures), "-o", str(path), *options])
    return path


def noise(model, count, seed=1):
    return np.random.default_rng(seed).standard_normal((count, *model.info.frame_shape), dtype=np.float32)


def test_file_says_all_that_the_demo_has_to_know(half, model):
    info = load_model(half).info
    assert info.class_names == tuple(CLASS_NAMES)
    assert (info.frame_rate, info.threshold) == (7.5, 0.7)
    assert (model.info.frame_rate, model.info.threshold) == (FRAME_RATE, THRESHOLD)  # the checkpoint records neither
    assert (info.input_size, info.scale_size, info.normalization) == (64, 73, model.info.normalization)
    assert info.buffer_shapes == model.info.buffer_shapes


def test_half_the_size_and_the_same_network(half, model):
    assert half.stat().st_size < 0.55 * model.onnx_path.stat().st_size
    wanted, halved = model.stream.state_dict(), load_model(half).stream.state_dict()
    assert wanted.keys() == halved.keys()
    for name, value in wanted.items():
        rounded = value.half().float() if value.dim() > 1 else value
        assert torch.equal(halved[name], rounded), name


def test_onnxruntime_and_torch_run_the_same_file_alike(half):
    model = load_model(half, threads=1)
    found = compare(TorchBackend(model), OnnxRuntimeBackend(model), [noise(model, 40)])
    assert found.num_same == 40
    assert found.worst < 1e-4


def test_the_repositorys_network():
    assert DEFAULT_WEIGHTS.stat().st_size <= 6_000_000
    model = load_model()
    found = compare(TorchBackend(model), OnnxRuntimeBackend(model), [noise(model, 20)])
    assert found.worst < 1e-4


def test_checkpoint_is_exported_once(tmp_path, monkeypatch):
    path = save_random(tmp_path / "mine.pth.tar", num_class=3, frame_rate=5.0)
    first = load_model(path)
    assert first.info.frame_rate == 5
    monkeypatch.setattr("ops.network.onnx_export.export_onnx", None)  # not called again
    assert load_model(path).info == first.info
    assert load_model(path).onnx_path == first.onnx_path


def test_other_files(half, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(half.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"damaged\.onnx: ONNX Runtime cannot load it"):
        load_model(tmp_path / "damaged.onnx")
    plain = onnx.load(half)
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "plain.onnx")
    with pytest.raises(InputError, match=r"plain\.onnx: holds no streaming network .* export one: python -m"):
        load_model(tmp_path / "plain.onnx")
