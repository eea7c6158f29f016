"""The streaming network in PyTorch: from a checkpoint or an .onnx file of ours, and exported as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from online_demo.network import FRAME_RATE, NetworkInfo
from ops.checkpoint.options import ModelOptions
from ops.common.errors import InputError
from ops.common.files import atomic_path
from ops.models import build_model
from ops.network.onnx_export import export_stream
from ops.network.runtime import fold_batchnorm
from ops.streaming import StreamingTSM


def load_stream(path: Path) -> StreamingTSM:
    """The network of a checkpoint, or of an .onnx file that `write_onnx` made; BatchNorm folded.

    Raises:
        InputError: no such file, or a network that cannot stream.
    """
    return _from_onnx(path) if path.suffix == ".onnx" else StreamingTSM.from_checkpoint(path, fold_bn=True)


def _from_onnx(path: Path) -> StreamingTSM:
    """The initialisers of the file have the names of the parameters."""
    onnx = _import_onnx()
    model = onnx.load(path)
    recorded = {item.key: item.value for item in model.metadata_props}
    if "options" not in recorded:
        raise InputError(f"{path}: does not record its network for PyTorch; give --weights the checkpoint")
    options = ModelOptions.from_dict(json.loads(recorded["options"]))
    net = build_model(options, partial_bn=False)
    net.eval().requires_grad_(False)
    fold_batchnorm(net)
    stream = StreamingTSM(net, options)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    casts = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    tensors = {casts.get(name, name): torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    wanted = stream.state_dict()
    stream.load_state_dict({name: tensors[name] for name in wanted})
    return stream


def describe_stream(stream: StreamingTSM) -> NetworkInfo:
    """What a checkpoint records about its network."""
    size, names = stream.input_size, stream.class_names
    if names is None or len(names) != stream.num_class:
        names = [f"class {index}" for index in range(stream.num_class or 0)]
    return NetworkInfo(
        class_names=tuple(names),
        input_size=size,
        scale_size=stream.scale_size,
        normalization=stream.normalization,
        buffer_shapes=tuple((1, *shape) for shape in stream.state_shapes(size, size)),
        frame_rate=(stream.options and stream.options.frame_rate) or FRAME_RATE,
    )


def example_inputs(info: NetworkInfo) -> tuple[torch.Tensor, ...]:
    """Inputs to export and compile with: a frame and the buffers, zeros."""
    return tuple(torch.zeros(shape) for shape in (info.frame_shape, *info.buffer_shapes))


def write_onnx(stream: StreamingTSM, info: NetworkInfo, path: Path, *, half: bool = False) -> None:
    """Write the step and what the demo has to know as one file, compared with PyTorch.

    half: then store the weights of convolutions and classifier in half precision; they compute in float32.
    """
    export_stream(stream, path, class_names=info.class_names, frame_rate=info.frame_rate)
    onnx = _import_onnx()
    model = onnx.load(path)
    recorded = {item.key: item.value for item in model.metadata_props}
    recorded |= {"threshold": json.dumps(info.threshold), "options": json.dumps(stream.options.to_dict())}
    onnx.helper.set_model_props(model, recorded)
    if half:
        _halve(model)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)


def _halve(model: Any) -> None:
    """Store each weight as float16 and cast it back, which ONNX Runtime does once, when it loads the file."""
    onnx = _import_onnx()
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = casts + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            f"reading an .onnx file into PyTorch needs onnx ({error}): pip install -r requirements-export.txt"
        ) from None
    return onnx
