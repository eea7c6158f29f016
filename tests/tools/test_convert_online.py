"""Our checkpoints to the published streaming layout and back, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archs.mobilenet_v2 import MobileNetV2
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.common.class_names import JESTER_CLASSES
from ops.common.errors import InputError
from ops.dataset_config import DatasetPaths
from ops.evaluation.net import Runtime, Views, load_net
from ops.models import TSN, build_model
from ops.streaming import StreamingTSM
from ops.transforms import ClipNormalize
from tests.helpers import make_frame_folder, make_list
from tools.convert_online import main

NAMES = [f"class {index}" for index in range(8)]


def spread_out(model: nn.Module) -> nn.Module:
    """Every tensor has values of its own, in the range of trained ones."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else 0.1 * torch.randn_like(tensor))
        else:
            tensor.fill_(1234)
    return model.eval()


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save_ours(**options) -> TSN:
    """Save an online MobileNetV2 of 8 classes as main.py does, in "ours"."""
    settings = {"arch": "mobilenetv2", "num_class": 8, "class_names": NAMES, "is_shift": True, "online": True}
    known = ModelOptions("moving_digits", input_size=64, **{**settings, **options})
    model = spread_out(build_model(known, partial_bn=False))
    state = {"epoch": 12, "best_prec1": 91.25, "arch": known.arch, "state_dict": published_state_dict(model)}
    save_checkpoint({**state, "options": known.to_dict(), "optimizer": {"state": {}, "param_groups": []}}, Path("ours"))
    return model


def convert(line: str) -> None:
    main(line.split())


def load(name: str) -> dict:
    return torch.load(name, weights_only=True)


def same(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Same keys in the same order, same types, same bits."""
    return list(given) == list(wanted) and all(
        given[key].dtype == wanted[key].dtype and torch.equal(given[key], wanted[key]) for key in wanted
    )


def test_ours_to_published_and_back() -> None:
    save_ours()
    convert("ours published")
    # What the published program does: a MobileNetV2 without wrappers, strict.
    state_dict = load("published")
    MobileNetV2(n_class=8).load_state_dict(state_dict, strict=True)
    assert list(state_dict) == list(MobileNetV2(n_class=8).state_dict())
    Path("category.txt").write_text("\n".join(NAMES))
    convert("published back --dataset moving_digits --labels category.txt --input_size 64")
    before, after = load_checkpoint("ours"), load_checkpoint("back")
    assert same(after.state_dict, before.state_dict)
    for name in ("dataset", "arch", "num_class", "is_shift", "online", "shift_div", "input_size", "class_names"):
        assert getattr(after.options, name) == getattr(before.options, name), name
    # Without what only training needs.
    convert("ours small --to ours")
    data = load("small")
    assert (data["epoch"], data["best_prec1"]) == (12, 91.25)
    assert set(data) == {"epoch", "best_prec1", "arch", "state_dict", "options"}


@pytest.mark.parametrize("counted", [True, False])  # PyTorch before 0.4.1 did not count batches
def test_published_to_ours_and_back(counted: bool) -> None:
    state_dict = spread_out(MobileNetV2(n_class=27)).state_dict()
    state_dict = {key: value for key, value in state_dict.items() if counted or "num_batches" not in key}
    save_checkpoint(state_dict, Path("gestures"))
    convert("gestures ours")
    options = load_checkpoint("ours").options
    assert (options.dataset, options.arch, options.online) == ("jester", "mobilenetv2", True)
    assert options.class_names == list(JESTER_CLASSES)
    convert("ours back")
    back = load("back")
    assert same({key: value for key, value in back.items() if counted or key in state_dict}, state_dict)


def test_both_layouts_stream_the_same() -> None:
    save_ours()
    convert("ours published")
    first, second = StreamingTSM.from_checkpoint("ours"), StreamingTSM.from_checkpoint("published")
    states = [first.init_state(1, 64, 64), second.init_state(1, 64, 64)]
    for frame in torch.randn(3, 1, 3, 64, 64):
        a, states[0] = first.step(frame, states[0])
        b, states[1] = second.step(frame, states[1])
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_half_precision_fits_the_repository_and_loads_into_float32(layout: str) -> None:
    model = save_ours()
    convert(f"ours small --to {layout} --half")
    assert Path("small").stat().st_size < 6e6
    stream = StreamingTSM.from_checkpoint("small")
    for (name, given), wanted in zip(stream.net.named_parameters(), model.parameters(), strict=True):
        assert given.dtype == torch.float32, name
        exact = wanted.half().float() if wanted.dim() > 1 else wanted
        assert torch.equal(given, exact), name
    assert all(torch.equal(a, b) for a, b in zip(stream.buffers(), model.buffers(), strict=True))
    # Converting the file again changes nothing more.
    convert("small again --to published --half")
    convert("again full --to published")
    assert same(load("full"), load("again"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet18"}, "mobilenetv2's, this is resnet18"),
        ({"online": False}, "from the past only"),
        ({"is_shift": False, "online": False}, "from the past only"),
        ({"shift_div": 4}, "1/8 of the channels, this network 1/4"),
    ],
    ids=str,
)
def test_networks_without_that_layout_are_refused(options: dict, message: str) -> None:
    save_ours(**options)
    with pytest.raises(InputError, match=rf"^ours: .*{message}"):
        convert("ours out")
    assert not Path("out").exists()


def test_mistakes_are_named() -> None:
    Path("names.txt").write_text("a\nb\n")
    save_checkpoint(MobileNetV2(n_class=8).state_dict(), Path("bare"))
    for line, message in (
        ("bare out", r"8 classes are not Jester's 27.*--dataset"),
        ("bare out --dataset mine --labels names.txt", r"2 names.* 8 classes"),
        ("bare out --to published --labels names.txt", "--labels is for our layout"),
        ("bare ./bare --dataset mine", "IN and OUT are the same file"),
    ):
        with pytest.raises(InputError, match=message):
            convert(line)
    weights = {k: v for k, v in MobileNetV2(n_class=27).state_dict().items() if "features.5" not in k}
    save_checkpoint(weights, Path("bare"))
    with pytest.raises(InputError, match=r"not in the file.*features\.5"):
        convert("bare out --to published")
    assert not Path("out").exists()


def test_published_file_is_evaluated_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "mobilenetv2_jester_online.pth.tar"
    save_checkpoint(spread_out(MobileNetV2(n_class=27)).state_dict(), path)
    make_frame_folder(tmp_path / "v", 5, size=(60, 44), tmpl="{:05d}.jpg")
    val_list = make_list(tmp_path / "val.txt", [("v", 5, 3)])
    loaded = load_net(load_checkpoint(path), views=Views(), runtime=Runtime(), input_size=32)
    assert "online" in str(loaded)
    clip, label = loaded.dataset(DatasetPaths("jester", 27, tmp_path, None, val_list, "{:05d}.jpg", False))[0]
    assert label == 3
    stream = StreamingTSM.from_checkpoint(path)
    normalize = ClipNormalize(**stream.normalization)
    state, scores = stream.init_state(1, 32, 32), []
    for frame in clip:
        frame_scores, state = stream.step(normalize(frame[None]), state)
        scores.append(frame_scores)
    torch.testing.assert_close(torch.cat(scores).mean(dim=0), loaded.scores(clip[None])[0], rtol=1e-3, atol=1e-5)
