"""Streaming = clip: a frame at a time with state gives what the online network gives for the whole clip."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from archs.mobilenet_v2 import MobileNetV2
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.streaming_layout import to_streaming_layout
from ops.checkpoint.weights import published_state_dict
from ops.common.class_names import JESTER_CLASSES
from ops.common.errors import InputError
from ops.dataset_config import DatasetPaths
from ops.evaluation.net import Runtime, Views, load_net
from ops.models import TSN, build_model
from ops.network.backbones import BACKBONES
from ops.streaming import StreamingTSM
from ops.temporal_shift import TemporalShift, make_temporal_shift
from tests.helpers import make_frame_folder, make_frames, make_list

LONG = ("resnet18", "resnet50", "resnet101", "resnext50_32x4d", "mobilenetv2")
OTHERS = sorted(set(BACKBONES) - {*LONG, "BNInception"})  # the same blocks, more of them
# The published streaming MobileNetV2 at 224 x 224.
MOBILENET_STATE = [(3, 56, 56), *[(4, 28, 28)] * 2, *[(8, 14, 14)] * 3, *[(12, 14, 14)] * 2, *[(20, 7, 7)] * 2]


def randomise(model: nn.Module, num_frames: int = 8) -> nn.Module:
    """Statistics, scales and a classifier as after training: a new network passes on next to nothing of a change."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.05)
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            # Residual branches of trained networks are small: otherwise depth blows up the smallest rounding.
            nn.init.constant_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight, 0.25)
    with torch.no_grad():
        clip = torch.randn(1, num_frames, 3, 64, 64)
        model.train()(clip if isinstance(model, TSN) else clip[0])
    return model.eval()


def online_tsn(arch: str = "mobilenetv2", num_segments: int = 8, **options) -> TSN:
    settings = {"pretrain": "none", "is_shift": True, "online": True, "print_spec": False, "partial_bn": False}
    torch.manual_seed(0)
    return randomise(TSN(6, num_segments, "RGB", base_model=arch, **{**settings, **options}), num_segments)


def stream_all(stream: StreamingTSM, clip: Tensor) -> Tensor:
    """(N, T, 3, H, W) -> scores (N, T, K), a frame at a time."""
    state = stream.init_state(len(clip), *clip.shape[-2:], dtype=clip.dtype)
    scores = []
    for t in range(clip.shape[1]):
        frame_scores, state = stream.step(clip[:, t], state)
        scores.append(frame_scores)
    return torch.stack(scores, dim=1)


def relative_error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).abs().max() / wanted.abs().max())


def check_equals_clip(model: TSN, size: int = 32, num_streams: int = 2) -> None:
    clip = torch.randn(num_streams, model.num_segments, 3, size, size)
    with torch.no_grad():
        wanted = model.frame_scores(clip)
        alone = model.frame_scores(clip[:, :1].expand_as(clip).contiguous())[:, -1]
    given = stream_all(StreamingTSM(model), clip)
    assert relative_error(given, wanted) < 1e-5
    assert relative_error(alone, wanted[:, 0]) > 1e-2  # the past does count


@pytest.mark.parametrize("arch", LONG)
def test_streaming_gives_what_the_clip_gives_over_64_frames(arch: str) -> None:
    # In training a clip has 8 frames: the shift knows no length.
    check_equals_clip(online_tsn(arch, num_segments=64))


@pytest.mark.parametrize("arch", OTHERS)
def test_streaming_gives_what_the_clip_gives_in_other_networks(arch: str) -> None:
    check_equals_clip(online_tsn(arch, num_segments=4), num_streams=1)


@pytest.mark.parametrize(
    "options",
    [
        {"base_model": "resnet18", "shift_place": "block"},
        {"base_model": "BNInception", "shift_place": "block"},
        {"base_model": "BNInception", "shift_place": "110000000001"},  # 3 input channels: nothing of them moves
        {"base_model": "resnet18", "dropout": 0.0},  # the classifier inside the backbone
        {"base_model": "mobilenetv2", "shift_div": 32},  # 24 channels: nothing of them moves
        {"base_model": "resnet18", "shift_div": 3},
    ],
    ids=str,
)
def test_options_stream_what_the_clip_gives(options: dict) -> None:
    check_equals_clip(online_tsn(options.pop("base_model"), **options))


def test_a_bare_network_with_online_shifts_streams() -> None:
    torch.manual_seed(0)
    net = randomise(MobileNetV2(n_class=5, width_mult=0.25))
    make_temporal_shift(net, 8, online=True)
    clip = torch.randn(3, 8, 3, 32, 32)
    with torch.no_grad():
        wanted = net(clip.flatten(0, 1)).unflatten(0, (3, 8))
    assert relative_error(stream_all(StreamingTSM(net), clip), wanted) < 1e-5


def test_state_of_the_published_mobilenet() -> None:
    stream = StreamingTSM(online_tsn())
    state = stream.init_state(2, 224, 224)
    assert [tuple(buffer.shape) for buffer in state] == [(2, *shape) for shape in MOBILENET_STATE]
    assert stream.num_buffers == 10
    assert all(not buffer.any() and buffer.dtype == torch.float32 for buffer in state)
    assert stream.input_names == ["frame", *(f"shift_in_{i}" for i in range(10))]
    assert stream.output_names == ["logits", *(f"shift_out_{i}" for i in range(10))]


def test_state_is_the_moved_channels_of_the_frame_before() -> None:
    model = online_tsn()
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, TemporalShift):
            module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    frame = torch.randn(1, 3, 64, 64)
    stream = StreamingTSM(model)
    _, state = stream.step(frame, stream.init_state(1, 64, 64))
    with torch.no_grad():
        model(frame.expand(8, -1, -1, -1).reshape(1, -1, 64, 64))
    for buffer, x in zip(state, seen, strict=True):
        torch.testing.assert_close(buffer, x[:1, : x.shape[1] // 8], rtol=1e-4, atol=1e-4)


def test_weights_are_shared_with_the_clip_network() -> None:
    model = online_tsn()
    stream = StreamingTSM(model)
    assert {id(p) for p in stream.parameters()} == {id(p) for p in model.parameters()}
    assert {id(b) for b in stream.buffers()} == {id(b) for b in model.buffers()}
    clip = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        model.classifier.bias += 5.0
        assert relative_error(stream_all(stream, clip), model.frame_scores(clip)) < 1e-5
    model.double()
    with torch.no_grad():
        assert relative_error(stream_all(stream, clip.double()), model.frame_scores(clip.double())) < 1e-12


# --- several streams --------------------------------------------------------------------------------------------------


def test_reset_leaves_the_other_streams_to_the_last_bit() -> None:
    stream = StreamingTSM(online_tsn())
    frames = torch.randn(6, 4, 3, 32, 32)
    state = stream.init_state(4, 32, 32)
    for frame in frames[:3]:
        _, state = stream.step(frame, state)
    fresh = stream.init_state(4, 32, 32)
    other = stream.reset(state, [1, 3])
    for frame in frames[3:]:
        scores, state = stream.step(frame, state)
        other_scores, other = stream.step(frame, other)
        fresh_scores, fresh = stream.step(frame, fresh)
        assert torch.equal(other_scores[[0, 2]], scores[[0, 2]])
        assert torch.equal(other_scores[[1, 3]], fresh_scores[[1, 3]])
        assert not torch.equal(other_scores[1], scores[1])


@pytest.mark.parametrize("streams", [2, [2], torch.tensor([2]), -2, torch.tensor([False, False, True, False])], ids=str)
def test_reset_takes_index_indices_or_mask(streams) -> None:
    state = (torch.full((4, 2, 3, 3), float("nan")), torch.ones(4, 1, 5, 5))
    reset = StreamingTSM.reset(state, streams)
    for old, new in zip(state, reset, strict=True):
        assert not new[2].any()
        for index in (0, 1, 3):
            torch.testing.assert_close(new[index], old[index], rtol=0, atol=0, equal_nan=True)
        assert old[2].any()  # the old state is as it was


@pytest.mark.parametrize("streams", [4, -5, [0, 9], torch.tensor([True, False])], ids=str)
def test_reset_refuses_streams_that_are_not_there(streams) -> None:
    with pytest.raises(InputError, match="streams"):
        StreamingTSM.reset((torch.ones(4, 2, 3, 3),), streams)


def test_threads_share_one_module() -> None:
    stream = StreamingTSM(online_tsn())
    clips = torch.randn(4, 1, 12, 3, 32, 32)
    wanted = [stream_all(stream, clip) for clip in clips]
    with ThreadPoolExecutor(len(clips)) as pool:
        given = list(pool.map(lambda clip: stream_all(stream, clip), clips))
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)


def test_memory_does_not_grow() -> None:
    convs = [nn.Conv2d(3, 32, 3), *(TemporalShift(nn.Conv2d(32, 32, 3), online=True) for _ in range(3))]
    stream = StreamingTSM(nn.Sequential(*convs, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    frame, state = torch.randn(1, 3, 24, 24), stream.init_state(1, 24, 24)

    def live_after(num_steps: int) -> int:
        nonlocal scores, state
        for _ in range(num_steps):
            scores, state = stream.step(frame, state)
        gc.collect()
        return sum(type(thing) in (Tensor, nn.Parameter) for thing in gc.get_objects())

    scores = None
    assert live_after(2) == live_after(200)
    assert not scores.requires_grad
    # A view would keep the activation that it was cut from.
    assert all(buffer.untyped_storage().nbytes() == buffer.nbytes and buffer.grad_fn is None for buffer in state)


# --- what cannot stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "Flow"}, "takes Flow"),
        ({"online": False}, "next frame"),
        ({"is_shift": False}, "no temporal shift"),
        ({"temporal_pool": True}, "temporal pool"),
        ({"non_local": True, "base_model": "resnet50"}, "non-local"),
        ({"base_model": "BNInception", "shift_place": "block", "online": False}, "next frame"),
    ],
    ids=str,
)
def test_networks_that_need_later_frames_are_refused(options: dict, message: str) -> None:
    settings = {"modality": "RGB", "base_model": "resnet18", "is_shift": True, "online": True, **options}
    model = TSN(4, 8, pretrain="none", print_spec=False, **settings)
    with pytest.raises(InputError, match=message):
        StreamingTSM(model)


def test_a_state_of_something_else_is_refused() -> None:
    stream = StreamingTSM(online_tsn())
    frame = torch.zeros(2, 3, 64, 64)
    for state in (stream.init_state(1, 64, 64), stream.init_state(2, 96, 64), stream.init_state(2, 64, 64)[:-1]):
        with pytest.raises(InputError, match="init_state"):
            stream.step(frame, state)
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        stream.step(frame[0], stream.init_state(2, 64, 64))
    with pytest.raises(InputError, match=r"torch\.uint8 .*preprocess"):
        stream.step(frame.to(torch.uint8), stream.init_state(2, 64, 64))
    with pytest.raises(InputError, match="1 stream or more"):
        stream.init_state(0, 64, 64)


# --- exporters --------------------------------------------------------------------------------------------------------


def export_case() -> tuple[StreamingTSM, tuple[Tensor, ...]]:
    torch.manual_seed(1)
    stream = StreamingTSM(online_tsn())
    state = tuple(torch.randn_like(buffer) for buffer in stream.init_state(1, 64, 64))
    return stream, (torch.randn(1, 3, 64, 64), *state)


def check_outputs(given, wanted) -> None:
    for value, expected in zip(given, wanted, strict=True):
        torch.testing.assert_close(torch.as_tensor(value), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_torch_export_keeps_state_as_inputs_and_outputs() -> None:
    stream, example = export_case()
    program = torch.export.export(stream, example)
    assert len(program.graph_signature.user_inputs) == len(program.graph_signature.user_outputs) == 11
    other = tuple(torch.randn_like(x) for x in example)
    check_outputs(program.module()(*other), stream(*other))


@torch.no_grad()
def test_onnx_export_keeps_state_as_inputs_and_outputs(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is in requirements-export.txt")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in requirements-demo.txt")
    stream, example = export_case()
    path = tmp_path / "step.onnx"
    torch.onnx.export(
        stream,
        example,
        str(path),
        input_names=stream.input_names,
        output_names=stream.output_names,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == stream.input_names
    assert [x.name for x in session.get_outputs()] == stream.output_names
    other = tuple(torch.randn_like(x) for x in example)
    feeds = {name: value.numpy() for name, value in zip(stream.input_names, other, strict=True)}
    check_outputs(session.run(None, feeds), stream(*other))


# --- checkpoints and pixels -------------------------------------------------------------------------------------------


def saved_online(path: Path, *, arch: str = "resnet18", **options) -> TSN:
    """Save an online checkpoint of ours: 6 classes, crops of 32 pixels."""
    known = ModelOptions(
        "mine", arch=arch, num_class=6, class_names=list("abcdef"), input_size=32, is_shift=True,
        **{"online": True, **options},
    )  # fmt: skip
    torch.manual_seed(0)
    model = randomise(build_model(known, partial_bn=False))
    save_checkpoint({"state_dict": published_state_dict(model), "options": known.to_dict()}, path)
    return model


def test_streaming_a_clip_gives_the_scores_of_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth.tar"
    saved_online(path)
    make_frame_folder(tmp_path / "videos" / "v", 8, size=(60, 44), tmpl="img_{:05d}.png")
    val_list = make_list(tmp_path / "val.txt", [("v", 8, 0)])
    net = load_net(load_checkpoint(path), views=Views(), runtime=Runtime())
    paths = DatasetPaths("mine", 6, tmp_path / "videos", None, val_list, "img_{:05d}.png", False)
    wanted = net.scores(net.dataset(paths)[0][0][None])  # 8 frames, 8 segments: every frame
    frames = make_frames(8, size=(60, 44))
    stream = StreamingTSM.from_checkpoint(path)
    clip = stream.preprocess(frames)
    assert clip.shape == (8, 3, 32, 32)
    assert relative_error(stream_all(stream, clip[None]).mean(dim=1), wanted) < 1e-4
    assert torch.equal(stream.preprocess(frames[3])[0], clip[3])
    assert torch.equal(stream.preprocess(torch.from_numpy(frames[3]).permute(2, 0, 1))[0], clip[3])
    assert stream.class_names == list("abcdef")


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 1), np.uint8)])
def test_preprocess_takes_uint8_rgb_only(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8 RGB"):
        StreamingTSM(online_tsn()).preprocess(frames)


def test_published_layout_loads_under_any_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = randomise(MobileNetV2(n_class=27))
    save_checkpoint(net.state_dict(), tmp_path / "gestures.bin")
    stream = StreamingTSM.from_checkpoint(tmp_path / "gestures.bin")
    assert stream.class_names == list(JESTER_CLASSES)
    assert sorted(JESTER_CLASSES) == list(JESTER_CLASSES) and len(set(JESTER_CLASSES)) == 27
    assert (stream.num_class, stream.input_size, stream.scale_size) == (27, 224, 256)
    make_temporal_shift(net, 8, online=True)
    clip = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        wanted = net(clip[0])[None]
    assert relative_error(stream_all(stream, clip), wanted) < 1e-5


def test_folding_batchnorm_changes_rounding_only(tmp_path: Path) -> None:
    model = saved_online(tmp_path / "mine.pth.tar", arch="mobilenetv2")
    stream = StreamingTSM.from_checkpoint(tmp_path / "mine.pth.tar", fold_bn=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in stream.modules())
    clip = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(stream_all(stream, clip), model.frame_scores(clip)) < 1e-4


def test_checkpoints_that_cannot_stream_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "both.pth.tar"
    saved_online(path, online=False)
    with pytest.raises(InputError, match=r"both\.pth\.tar: .*next frame"):
        StreamingTSM.from_checkpoint(path)
    backbone = {k: v for k, v in to_streaming_layout(MobileNetV2().state_dict()).items() if "classifier" not in k}
    save_checkpoint(backbone, path)
    with pytest.raises(InputError, match=r"both\.pth\.tar: .*no classifier"):
        StreamingTSM.from_checkpoint(path)
