"""ONNX files of every family of networks, in ONNX Runtime and OpenVINO against PyTorch."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ops.checkpoint.options import ModelOptions
from ops.common.errors import InputError
from ops.models import build_model
from ops.network import onnx_export
from ops.network.onnx_export import export_clip, export_onnx, export_stream
from ops.streaming import StreamingTSM
from tests.online_demo.helpers import save_random
from tests.test_extend import small_tsn
from tools.export_onnx import main

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZE = 48
PLAIN = {"Conv", "BatchNormalization", "Relu", "Clip", "Add", "Sub", "Mul", "MatMul", "Gemm", "Softmax", "MaxPool"}
PLAIN |= {"AveragePool", "GlobalAveragePool", "ReduceMean", "Concat", "Slice", "Reshape", "Flatten", "Squeeze"}
PLAIN |= {"Unsqueeze", "Transpose", "Constant", "Shape", "ConstantOfShape", "Expand"}


def network(arch, **changes):
    """A TSN with statistics, scales and scores as after training, and its options."""
    torch.manual_seed(0)
    options = ModelOptions("digits", arch=arch, num_segments=4, num_class=3, input_size=SIZE, **changes)
    model = build_model(options, partial_bn=False).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    nn.init.normal_(model.classifier.weight, std=0.1)
    return model, options


def check_plain(path, opset):
    graph = onnx.load(path)
    assert [item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")] == [opset]
    assert {node.op_type for node in graph.graph.node} <= PLAIN
    for node in graph.graph.node:
        if node.op_type == "ReduceMean":
            assert any(attribute.name == "axes" for attribute in node.attribute) == (opset < 18)


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(scores, wanted):
    return np.abs(scores - wanted.numpy()).max() / wanted.abs().max().item()


SHIFT = {"is_shift": True}
CLIPS = [
    ("resnet18", {"consensus_type": "identity"}, 20, False),
    ("resnet18", SHIFT | {"non_local": True, "temporal_pool": True, "dropout": 0.0}, 13, True),
    ("resnet18", SHIFT | {"modality": "RGBDiff", "new_length": 2, "consensus_type": "identity"}, 17, True),
    ("BNInception", SHIFT | {"shift_place": "block"}, 13, True),
    ("mobilenetv2", SHIFT, 18, True),
]


@pytest.mark.parametrize(("arch", "changes", "opset", "dynamic"), CLIPS)
def test_clip_network(arch, changes, opset, dynamic, tmp_path):
    model, options = network(arch, **changes)
    path = tmp_path / "clip.onnx"
    assert export_clip(model, options, path, opset=opset, dynamic=dynamic) < 1e-4
    check_plain(path, opset)
    for batch in (1, 3) if dynamic else (1,):
        clip = torch.randn(batch, 4, model.segment_channels, SIZE, SIZE)
        (scores,) = session(path).run(None, {"clip": clip.numpy()})
        assert difference(scores, model(clip)) < 1e-4


@pytest.mark.parametrize(("arch", "opset", "dynamic"), [("mobilenetv2", 13, True), ("resnet18", 20, False)])
def test_stream_keeps_its_state(arch, opset, dynamic, tmp_path):
    model, options = network(arch, is_shift=True, online=True)
    stream, path = StreamingTSM(model, options), tmp_path / "stream.onnx"
    assert export_stream(stream, path, opset=opset, dynamic=dynamic) < 1e-4
    check_plain(path, opset)
    net, batch = session(path), 2 if dynamic else 1
    state = stream.init_state(batch, SIZE, SIZE)
    buffers = [buffer.numpy() for buffer in state]
    for frame in torch.randn(64, batch, 3, SIZE, SIZE):
        wanted, state = stream.step(frame, state)
        scores, *buffers = net.run(None, dict(zip(stream.input_names, [frame.numpy(), *buffers], strict=True)))
        assert difference(scores, wanted) < 1e-4


def test_network_of_ones_own(tmp_path):
    assert export_clip(small_tsn(), None, tmp_path / "own.onnx", opset=17) < 1e-4
    metadata = {item.key: item.value for item in onnx.load(tmp_path / "own.onnx").metadata_props}
    assert (metadata["num_class"], metadata["input_size"], "arch" in metadata) == ("5", "224", False)


def test_openvino_agrees(tmp_path):
    openvino = pytest.importorskip("openvino")
    model, options = network("resnet18", is_shift=True, non_local=True)
    export_clip(model, options, tmp_path / "clip.onnx", opset=13, dynamic=True)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "clip.onnx"), "CPU", exact)
    clip = torch.randn(2, 4, 3, SIZE, SIZE)
    assert difference(compiled(clip.numpy())[0], model(clip)) < 1e-3


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worst", [2e-3, float("nan")])
def test_a_file_that_differs_is_not_kept(worst, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "compare", lambda *_: worst)
    path = tmp_path / "line.onnx"
    path.write_text("an older file")
    with pytest.raises(InputError, match=r"line\.onnx: ONNX Runtime's scores differ .* not written"):
        export_onnx(nn.Linear(2, 2), [torch.zeros(1, 2)], path, input_names=["x"], output_names=["y"], opset=17)
    assert [entry.name for entry in tmp_path.iterdir()] == ["line.onnx"]
    assert path.read_text() == "an older file"


def test_a_network_that_depends_on_its_input_is_refused_in_one_line(tmp_path):
    class Halved(nn.Module):
        def forward(self, x):
            return x / 2 if x.sum() > 0 else x

    with pytest.raises(InputError, match=r"out\.onnx: cannot export this Halved with opset 18: [^\n]+$"):
        export_onnx(Halved(), [torch.zeros(1, 2)], tmp_path / "out.onnx", input_names=["x"], output_names=["y"])
    assert not list(tmp_path.iterdir())


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_writes_clip_and_stream_with_metadata(tmp_path, capsys):
    checkpoint, path = (
        save_random(tmp_path / "net.pth.tar", arch="resnet18", num_class=2, frame_rate=6.25),
        tmp_path / "net.onnx",
    )
    labels = tmp_path / "labels.txt"
    labels.write_text("auf\nab\n")
    main(
        [str(checkpoint), str(path), "--segments", "4", "--input_size", "32", "--opset", "17", "--labels", str(labels)]
    )
    assert "a clip of 4 segments, batch size 1, opset 17" in capsys.readouterr().out
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert [item.shape for item in session(path).get_inputs()] == [[1, 4, 3, 32, 32]]
    assert (metadata["input_layout"], metadata["sampling"], metadata["arch"]) == ("NTCHW", "uniform", "resnet18")
    wanted = {"class_names": ["auf", "ab"], "num_segments": 4, "input_size": 32, "scale_size": 36}
    wanted["frame_rate"] = 6.25  # the checkpoint's
    assert {name: json.loads(metadata[name]) for name in wanted} == wanted
    assert json.loads(metadata["normalization"])["std"] == [0.229, 0.224, 0.225]

    main([str(checkpoint), str(path), "--stream", "--dynamic", "--frame_rate", "12.5", "--opset", "17"])
    assert "a frame and 8 buffers, any batch size, opset 17" in capsys.readouterr().out
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert (metadata["input_layout"], metadata["frame_rate"]) == ("NCHW", "12.5")
    assert [item.name for item in session(path).get_inputs()][:2] == ["frame", "shift_in_0"]
    with pytest.raises(InputError, match="--segments is for clips"):
        main([str(checkpoint), str(path), "--stream", "--segments", "4"])
