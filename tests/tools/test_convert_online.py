"""Our checkpoints to the published streaming layout and back, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archs.mobilenet_v2 import mobilenet_v2
from ops.checkpoint.file import ModelOptions, load_checkpoint, published_state_dict, save_checkpoint, save_state_dict
from ops.checkpoint.streaming_layout import JESTER_CLASSES
from ops.common.errors import InputError
from ops.dataset_configs import DatasetPaths
from ops.evaluation.net import Runtime, Views, load_net
from ops.models import TSN, build_model
from ops.streaming import StreamingTSM
from ops.transforms import ClipNormalize
from tests.helpers import make_frame_folder, make_list, run_cli
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


def save_ours(path: Path, **options) -> TSN:
    """An online MobileNetV2 of 8 classes, as main.py saves it."""
    settings = {"arch": "mobilenetv2", "num_class": 8, "class_names": NAMES, "is_shift": True, "online": True}
    known = ModelOptions("moving_digits", input_size=64, **{**settings, **options})
    model = spread_out(build_model(known, partial_bn=False))
    state = {"epoch": 12, "best_prec1": 91.25, "arch": known.arch, "state_dict": published_state_dict(model)}
    save_checkpoint({**state, "options": known.to_dict(), "optimizer": {"state": {}, "param_groups": []}}, path)
    return model


def convert(*arguments: str | Path) -> None:
    main([str(argument) for argument in arguments])


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def same(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Same keys in the same order, same types, same bits."""
    return list(given) == list(wanted) and all(
        given[key].dtype == wanted[key].dtype and torch.equal(given[key], wanted[key]) for key in wanted
    )


def test_ours_to_published_and_back(tmp_path: Path) -> None:
    ours, published, back = tmp_path / "ours.pth.tar", tmp_path / "published.pth.tar", tmp_path / "back.pth.tar"
    save_ours(ours)
    convert(ours, published)
    # What the published program does: a MobileNetV2 without wrappers, strict.
    state_dict = load(published)
    mobilenet_v2(num_classes=8).load_state_dict(state_dict, strict=True)
    assert list(state_dict) == list(mobilenet_v2(num_classes=8).state_dict())
    labels = tmp_path / "category.txt"
    labels.write_text("\n".join(NAMES))
    convert(published, back, "--dataset", "moving_digits", "--labels", labels, "--input_size", "64")
    before, after = load_checkpoint(ours), load_checkpoint(back)
    assert same(after.state_dict, before.state_dict)
    for name in ("dataset", "arch", "num_class", "is_shift", "online", "shift_div", "input_size", "class_names"):
        assert getattr(after.options, name) == getattr(before.options, name), name


def test_published_to_ours_and_back(tmp_path: Path) -> None:
    published, ours, back = (tmp_path / name for name in ("gestures.pth.tar", "ours.pth.tar", "back.pth.tar"))
    save_state_dict(spread_out(mobilenet_v2(num_classes=27)).state_dict(), published)
    convert(published, ours)
    options = load_checkpoint(ours).options
    assert (options.dataset, options.arch, options.online) == ("jester", "mobilenetv2", True)
    assert options.class_names == list(JESTER_CLASSES)
    convert(ours, back)
    assert same(load(back), load(published))


def test_both_layouts_stream_the_same(tmp_path: Path) -> None:
    ours, published = tmp_path / "ours.pth.tar", tmp_path / "published.pth.tar"
    save_ours(ours)
    convert(ours, published)
    first, second = StreamingTSM.from_checkpoint(ours), StreamingTSM.from_checkpoint(published)
    states = [first.init_state(1, 64, 64), second.init_state(1, 64, 64)]
    for frame in torch.randn(3, 1, 3, 64, 64):
        a, states[0] = first.step(frame, states[0])
        b, states[1] = second.step(frame, states[1])
        assert torch.equal(a, b)


def test_epoch_and_accuracy_stay_and_the_optimiser_goes(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours.pth.tar")
    convert(tmp_path / "ours.pth.tar", tmp_path / "small.pth.tar", "--to", "ours")
    data = load(tmp_path / "small.pth.tar")
    assert (data["epoch"], data["best_prec1"]) == (12, 91.25)
    assert set(data) == {"epoch", "best_prec1", "arch", "state_dict", "options"}


def test_files_without_counters_convert(tmp_path: Path) -> None:
    # PyTorch before 0.4.1 did not count batches.
    old = {k: v for k, v in spread_out(mobilenet_v2(num_classes=27)).state_dict().items() if "num_batches" not in k}
    save_state_dict(old, tmp_path / "old.pth.tar")
    convert(tmp_path / "old.pth.tar", tmp_path / "ours.pth.tar")
    convert(tmp_path / "ours.pth.tar", tmp_path / "new.pth.tar")
    new = load(tmp_path / "new.pth.tar")
    assert same({key: new[key] for key in old}, old)


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_half_precision_fits_the_repository_and_loads_into_float32(tmp_path: Path, layout: str) -> None:
    model = save_ours(tmp_path / "ours.pth.tar")
    small = tmp_path / "small.pth.tar"
    convert(tmp_path / "ours.pth.tar", small, "--to", layout, "--half")
    assert small.stat().st_size < 6e6
    stream = StreamingTSM.from_checkpoint(small)
    for (name, given), wanted in zip(stream.net.named_parameters(), model.parameters(), strict=True):
        assert given.dtype == torch.float32, name
        exact = wanted.half().float() if wanted.dim() > 1 else wanted
        assert torch.equal(given, exact), name
    assert all(torch.equal(a, b) for a, b in zip(stream.buffers(), model.buffers(), strict=True))
    # Converting the file again changes nothing more.
    convert(small, tmp_path / "again.pth.tar", "--to", "published", "--half")
    convert(tmp_path / "again.pth.tar", tmp_path / "full.pth.tar", "--to", "published")
    again, full = load(tmp_path / "again.pth.tar"), load(tmp_path / "full.pth.tar")
    assert same(full, again)


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
def test_networks_without_that_layout_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    path = tmp_path / "other.pth.tar"
    save_ours(path, **options)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: .*{message}"):
        convert(path, tmp_path / "out.pth.tar")
    assert not (tmp_path / "out.pth.tar").exists()


def test_mistakes_are_named(tmp_path: Path) -> None:
    bare, out = tmp_path / "bare.pth.tar", tmp_path / "out.pth.tar"
    save_state_dict(mobilenet_v2(num_classes=8).state_dict(), bare)
    with pytest.raises(InputError, match=r"8 classes are not Jester's 27.*--dataset"):
        convert(bare, out)
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"2 names.* 8 classes"):
        convert(bare, out, "--dataset", "mine", "--labels", tmp_path / "names.txt")
    with pytest.raises(InputError, match="--labels is for our layout"):
        convert(bare, out, "--to", "published", "--labels", tmp_path / "names.txt")
    with pytest.raises(InputError, match="IN and OUT are the same file"):
        convert(bare, tmp_path / "." / "bare.pth.tar", "--dataset", "mine")
    weights = {k: v for k, v in mobilenet_v2(num_classes=27).state_dict().items() if "features.5" not in k}
    save_state_dict(weights, bare)
    with pytest.raises(InputError, match=r"not in the file.*features\.5"):
        convert(bare, out, "--to", "published")
    assert not out.exists()
    result = run_cli(["tools/convert_online.py", tmp_path / "nothing.pth", out])
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1


def test_published_file_is_evaluated_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "mobilenetv2_jester_online.pth.tar"
    net = spread_out(mobilenet_v2(num_classes=27))
    save_state_dict(net.state_dict(), path)
    make_frame_folder(tmp_path / "v", 5, size=(60, 44), tmpl="{:05d}.jpg")
    val_list = make_list(tmp_path / "val.txt", [("v", 5, 3)])
    loaded = load_net(load_checkpoint(path), views=Views(), runtime=Runtime(), input_size=32)
    assert "online" in str(loaded)
    paths = DatasetPaths("jester", 27, tmp_path, None, val_list, "{:05d}.jpg", False)
    clip, label = loaded.dataset(paths)[0]
    assert label == 3
    stream = StreamingTSM.from_checkpoint(path)
    normalize = ClipNormalize(**stream.normalization)
    state, scores = stream.init_state(1, 32, 32), []
    for frame in clip:
        frame_scores, state = stream.step(normalize(frame[None]), state)
        scores.append(frame_scores)
    torch.testing.assert_close(torch.cat(scores).mean(dim=0), loaded.scores(clip[None])[0], rtol=1e-3, atol=1e-5)
