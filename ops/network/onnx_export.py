"""A network as an ONNX file of plain operators, which is compared with PyTorch before it is kept.

torch.export records the network first, so that every size but the batch's is a number and none is computed in the file.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ops.checkpoint.options import ModelOptions
from ops.common.errors import InputError
from ops.common.files import atomic_path

OPSETS = range(13, 21)
DEFAULT_OPSET = 18
MAX_DIFFERENCE = 1e-3  # relative to the largest score
_LOWEST_DYNAMO_OPSET = 18
_NUM_CHECK_STEPS = 4


def export_onnx(
    model: nn.Module,
    inputs: Sequence[Tensor],
    path: str | Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = DEFAULT_OPSET,
    dynamic: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write a network as ONNX and compare it with PyTorch: the whole file, checked, or none.

    Args:
        model: in evaluation mode, on the CPU. Outputs after the first are state: they are fed back as the inputs after
            the first.
        inputs: examples of its inputs, float32; the first dimension is the batch.
        opset: one of OPSETS. From 18 on by PyTorch's newer exporter, before by the older one, which writes
            ReduceMean's axes as an attribute, as TensorRT 8 wants them.
        dynamic: any batch size instead of the examples'.
        metadata: written into the file (`network_metadata`).

    Returns the largest difference of the first output from PyTorch's, relative to its largest value, on random inputs.

    Raises:
        InputError: packages that are missing, an opset out of range, a network that cannot be exported, a file that
            cannot be written, or a difference above MAX_DIFFERENCE.
    """
    onnx = _import_packages()
    if opset not in OPSETS:
        raise InputError(f"opset {opset}: choose one from {OPSETS[0]} to {OPSETS[-1]}")
    with atomic_path(path) as temporary:
        try:
            names = {"input_names": list(input_names), "output_names": list(output_names)}
            _write(model, inputs, temporary, names, opset=opset, dynamic=dynamic)
            proto = onnx.load(temporary)
            for value in (*proto.graph.input, *proto.graph.output) if dynamic else ():
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
            onnx.helper.set_model_props(proto, dict(metadata or {}))
            onnx.save(proto, temporary)
            onnx.checker.check_model(str(temporary), full_check=True)
            batch = len(inputs[0])
            worst = max(compare(temporary, model, inputs, size) for size in ((1, batch + 1) if dynamic else (batch,)))
        except Exception as error:  # of four packages, whose kinds have nothing in common
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{path}: cannot export this {type(model).__name__} with opset {opset}: {reason}"
            ) from error
        if not worst <= MAX_DIFFERENCE:  # NaN is no agreement either
            raise InputError(
                f"{path}: ONNX Runtime's scores differ from PyTorch's by {worst:.1e} of the largest, at most "
                f"{MAX_DIFFERENCE:.0e} is rounding: not written; try another --opset"
            )
    return worst


def export_stream(
    stream: nn.Module,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    frame_rate: float | None = None,
    opset: int = DEFAULT_OPSET,
    dynamic: bool = False,
) -> float:
    """Write a `StreamingTSM`: `frame` (N, 3, H, W), `shift_in_0`, ... -> `logits` (N, K), `shift_out_0`, ...

    A stream starts with zeros in every `shift_in`; each `shift_out` goes into the next frame's `shift_in`. The sizes
    are those of `stream.input_size`; N is 1, or any if `dynamic`. The rest as in `export_onnx` and `network_metadata`.
    """
    size = stream.input_size
    metadata = network_metadata(stream, stream.options, "NCHW", class_names=class_names, frame_rate=frame_rate)
    return export_onnx(
        stream,
        (torch.zeros(1, 3, size, size), *stream.init_state(1, size, size)),
        path,
        input_names=stream.input_names,
        output_names=stream.output_names,
        opset=opset,
        dynamic=dynamic,
        metadata=metadata,
    )


def export_clip(
    model: nn.Module,
    options: ModelOptions | None,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    frame_rate: float | None = None,
    opset: int = DEFAULT_OPSET,
    dynamic: bool = False,
) -> float:
    """Write a `TSN`: `clip` (N, T, C, H, W) -> `logits` (N, K); N is 1, or any if `dynamic`.

    `options`: what the network is, where known. The rest as in `export_onnx` and `network_metadata`.
    """
    size = model.input_size
    return export_onnx(
        model,
        (torch.zeros(1, model.num_segments, model.segment_channels, size, size),),
        path,
        input_names=["clip"],
        output_names=["logits"],
        opset=opset,
        dynamic=dynamic,
        metadata=network_metadata(model, options, "NTCHW", class_names=class_names, frame_rate=frame_rate),
    )


def network_metadata(
    model: nn.Module,
    options: ModelOptions | None,
    layout: str,
    *,
    class_names: Sequence[str] | None = None,
    frame_rate: float | None = None,
) -> dict[str, str]:
    """What a program that runs the file has to know: text as it is, all else as JSON; what is not known is left out.

    Args:
        model: a TSN or a StreamingTSM. Its `normalization` holds the arguments of `ops.transforms.ClipNormalize`; the
            short side of frames is scaled to its `scale_size` before the crop of `input_size`.
        options: what the network is, where known.
        layout: the dimensions of the first input, such as "NTCHW".
        class_names: in label order, by default those of the options.
        frame_rate: frames a second that the network was trained to see, by default the options'.
    """
    values = {
        "input_layout": layout,
        "input_size": model.input_size,
        "scale_size": model.scale_size,
        "normalization": model.normalization,
        "num_class": model.num_class,
        "class_names": class_names and list(class_names),
        "frame_rate": frame_rate,
    }
    if options is not None:
        values["class_names"] = values["class_names"] or options.class_names
        values["frame_rate"] = values["frame_rate"] or options.frame_rate
        values["sampling"] = "dense" if options.dense_sample else "uniform"
        values |= {
            name: getattr(options, name) for name in ("arch", "dataset", "modality", "num_segments", "new_length")
        }
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }


def compare(path: str | Path, model: nn.Module, inputs: Sequence[Tensor], batch: int) -> float:
    """Largest difference of ONNX Runtime's first output from PyTorch's, relative to its largest value; NaN if any is.

    The first input is noise with the examples' shape and `batch` of them, anew in each of a few steps; the others are
    state, zeros at first.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    state = [torch.zeros(batch, *example.shape[1:]) for example in inputs[1:]]
    other_state = [buffer.numpy() for buffer in state]
    generator, differences = torch.Generator().manual_seed(0), []
    for _ in range(_NUM_CHECK_STEPS if state else 1):
        noise = torch.randn(batch, *inputs[0].shape[1:], generator=generator)
        with torch.no_grad():
            wanted, *state = outputs if isinstance(outputs := model(noise, *state), tuple) else (outputs,)
        scores, *other_state = session.run(None, dict(zip(names, [noise.numpy(), *other_state], strict=True)))
        differences.append(np.abs(scores - wanted.numpy()).max() / wanted.abs().max().item())
    return float(np.max(differences))  # unlike max(), NaN if any is


def _import_packages() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"exporting to ONNX needs more ({error}): pip install -r requirements-export.txt") from None
    return onnx


def _write(
    model: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    names: Mapping[str, list[str]],
    *,
    opset: int,
    dynamic: bool,
) -> None:
    """Record the network, and write it by the exporter that knows the opset."""
    with torch.no_grad(), _quiet():
        program = _record(model, inputs, dynamic)
        if opset >= _LOWEST_DYNAMO_OPSET:
            source, options = program, {"dynamo": True, "external_data": False, "verbose": False}
        else:
            source, options = _plain_graph(program), {"dynamo": False}
            # An exported program is for evaluation, and refuses to be told so.
            options["training"] = torch.onnx.TrainingMode.PRESERVE
            options["dynamic_axes"] = {name: [0] for group in names.values() for name in group if dynamic}
        torch.onnx.export(source, tuple(inputs), str(path), opset_version=opset, **names, **options)


def _record(model: nn.Module, inputs: Sequence[Tensor], dynamic: bool) -> torch.export.ExportedProgram:
    """The network as a graph of operators, for any batch size where `dynamic`."""
    if not dynamic:
        return torch.export.export(model, tuple(inputs))
    # A batch of one would be taken for a size that never changes.
    examples = tuple(torch.zeros(2, *example.shape[1:]) for example in inputs)
    batch, shapes = torch.export.Dim("batch"), torch.export.ShapesCollection()
    for example in examples:
        shapes[example] = {0: batch}
    return torch.export.export(model, examples, dynamic_shapes=shapes.dynamic_shapes(model, examples))


def _plain_graph(program: torch.export.ExportedProgram) -> nn.Module:
    """The recorded network for the older exporter, which freezes sizes, and knows fused attention from opset 14 on."""
    module, aten = program.module(), torch.ops.aten
    for node in module.graph.nodes:
        if node.target is aten.scaled_dot_product_attention.default:
            node.target = _attention
        elif node.target in (aten.view.default, aten.reshape.default):
            tensor, shape = node.args  # the batch, as a node, is the size that follows from the others
            node.args = (tensor, [-1 if isinstance(size, torch.fx.Node) else size for size in shape])
    module.recompile()
    return module


def _attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Scaled dot-product attention in plain operators."""
    return (query @ key.transpose(-2, -1) * scale).softmax(dim=-1) @ value


@contextlib.contextmanager
def _quiet():
    """Silence what the exporters print and warn about: their steps, their own future, constants of the network."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
