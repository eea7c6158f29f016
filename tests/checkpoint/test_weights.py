"""Weights into a network and out of it, in every layout, with every key accounted for."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ops.checkpoint.file import load_checkpoint, rng_state, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import load_for_finetune, load_into, published_state_dict, same_dataset
from ops.common.errors import InputError
from ops.models import TSN, build_model

TSM_OPTIONS = ModelOptions(dataset="jester", arch="resnet18", num_segments=4, num_class=5, is_shift=True)


def _net(options: ModelOptions = TSM_OPTIONS, *, seed: int = 0) -> TSN:
    torch.manual_seed(seed)
    return build_model(options).eval()


def _random_weights(net: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.01)
        else:
            value.fill_(7)
    return net


def _as_published(state_dict: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((f"module.{key}", value) for key, value in state_dict.items())


def _save(path: Path, state_dict: dict[str, Tensor], options: ModelOptions | None = None, **rest: object) -> Path:
    state = {"epoch": 3, "arch": "resnet18", "state_dict": state_dict, "best_prec1": 12.5, **rest}
    if options is not None:
        state["options"] = options.to_dict()
    torch.save(state, path)
    return path


def _equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def _without_net(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace(".net.", "."): value for key, value in state_dict.items()}


def _linear_head(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("new_fc.", "base_model.fc."): value for key, value in state_dict.items()}


LAYOUTS = {
    "as it is": lambda weights: weights,
    "published": _as_published,
    "twice wrapped": lambda weights: {f"module._orig_mod.{key}": value for key, value in weights.items()},
    "compiled inside": lambda weights: {
        k.replace("base_model.", "base_model._orig_mod."): v for k, v in weights.items()
    },
    "without net": _without_net,
    "linear head": _linear_head,
    "published, without net, linear head": lambda weights: _as_published(_without_net(_linear_head(weights))),
    "bare backbone": lambda weights: {k.removeprefix("base_model."): v for k, v in _linear_head(weights).items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_every_layout_loads(tmp_path: Path, layout: str, dropout: float) -> None:
    source = _random_weights(_net())
    weights = LAYOUTS[layout](source.state_dict())
    path = tmp_path / "TSM_jester_RGB_resnet18_shift8_blockres_avg_segment4_e2.pth.tar"
    full_file = {"epoch": 3, "state_dict": weights, "best_prec1": 50.0}
    torch.save(weights if dropout else full_file, path, _use_new_zipfile_serialization=dropout == 0)
    checkpoint = load_checkpoint(path)
    assert checkpoint.options.num_class == 5
    net = build_model(checkpoint.options, dropout=dropout)
    report = load_into(net, checkpoint)
    assert len(report.matched) + len(report.remapped) == len(weights) == len(net.state_dict())
    assert (report.skipped, report.missing) == ([], [])
    clip = torch.rand(2, 4 * 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(net.eval()(clip), source(clip))


def test_report_counts_and_names_what_was_renamed(tmp_path: Path) -> None:
    weights = _without_net(_net().state_dict())
    report = load_into(_net(), weights)
    shifted = [f"base_model.layer{i}.{j}.conv1.net.weight" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert [new for _, new in report.remapped] == shifted
    assert len(report.matched) == len(weights) - 8
    assert "layer1.0.conv1.weight -> base_model.layer1.0.conv1.net.weight" in str(report)
    assert f"{len(weights) - 8} matched, 8 remapped, 0 skipped, 0 missing" in str(report)


def test_old_files_lack_batch_counters() -> None:
    source = _random_weights(_net())
    weights = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    net = _net()
    report = load_into(net, weights)
    assert len(report.missing) == 20  # BatchNorms of a ResNet-18
    assert "20 num_batches_tracked" in str(report)
    assert torch.equal(net.base_model.bn1.running_var, source.base_model.bn1.running_var)


def test_wrapped_networks_load_too_and_leave_no_trace_in_the_file() -> None:
    source = _random_weights(_net())
    net = _net()
    wrapped = nn.DataParallel(nn.Sequential(OrderedDict(_orig_mod=net)))
    load_into(wrapped, published_state_dict(source))
    assert _equal(net, source)
    assert list(published_state_dict(wrapped)) == list(published_state_dict(source))


def _refused(net: nn.Module, weights: dict[str, Tensor], match: str, **options: bool) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InputError, match=match) as caught:
        load_into(net, weights, **options)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_backbone_that_does_not_fit_is_refused_with_its_keys_and_loads_nothing() -> None:
    weights = dict(_random_weights(_net()).state_dict())
    fewer = {key: value for key, value in weights.items() if "layer4.1." not in key}
    _refused(
        _net(),
        fewer,
        r"10 of the network's tensors are not in the file \(base_model.layer4.1.conv1.net.weight, .* 6 more",
    )
    _refused(
        _net(),
        {**weights, "base_model.layer5.0.weight": torch.ones(3)},
        r"1 of the file's .*\(base_model.layer5.0.weight\)",
    )
    _refused(
        _net(),
        {**weights, "base_model.conv1.weight": torch.ones(64, 10, 7, 7)},
        r"1 differ in shape: base_model.conv1.weight is \(64, 10, 7, 7\) in the file and \(64, 3, 7, 7\) in the net",
    )
    _refused(_net(), {**weights, "base_model.bn1.bias": torch.ones(64, dtype=torch.int8)}, "int8")
    _refused(_net(), {**weights, "base_model.fc.bias": torch.ones(5)}, "two tensors for the same weight: .*new_fc.bias")
    mobilenet = build_model(ModelOptions(dataset="jester", arch="mobilenetv2", num_class=5))
    _refused(_net(), mobilenet.state_dict(), r"network's tensors .* file's")


def test_a_head_of_another_size_is_refused_or_left_out() -> None:
    source = _random_weights(_net(ModelOptions(**{**TSM_OPTIONS.to_dict(), "num_class": 9})))
    _refused(_net(), source.state_dict(), r"new_fc.weight is \(9, 512\) in the file and \(5, 512\) in the network")
    net = _net()
    head = net.new_fc.weight.clone()
    report = load_into(net, source.state_dict(), new_head=True)
    assert torch.equal(net.new_fc.weight, head)
    assert torch.equal(net.base_model.layer4[1].bn2.bias, source.base_model.layer4[1].bn2.bias)
    assert report.skipped == report.missing == ["new_fc.weight", "new_fc.bias"]


def test_a_shift_at_other_places_is_refused() -> None:
    block = _net(ModelOptions(**{**TSM_OPTIONS.to_dict(), "shift_place": "block"}))
    _refused(_net(), block.state_dict(), "at other places")
    pooled = _net(ModelOptions(**{**TSM_OPTIONS.to_dict(), "temporal_pool": True}))
    _refused(_net(), pooled.state_dict(), "at other places.*layer2")


def test_streaming_file_loads_into_mobilenetv2(tmp_path: Path) -> None:
    online = ModelOptions(dataset="jester", arch="mobilenetv2", num_class=27, is_shift=True, online=True, dropout=0.0)
    source = _random_weights(_net(online))
    weights = {k.removeprefix("base_model."): v for k, v in _without_net(source.state_dict()).items()}
    assert {key.split(".")[0] for key in weights} == {"features", "classifier"}
    torch.save(weights, tmp_path / "mobilenetv2_jester_online.pth.tar")
    checkpoint = load_checkpoint(tmp_path / "mobilenetv2_jester_online.pth.tar")
    assert checkpoint.options == ModelOptions(**{**online.to_dict(), "flip": False})
    net = build_model(checkpoint.options)
    load_into(net, checkpoint)
    assert _equal(net, source)


# --- options and names ------------------------------------------------------------------------------------------------


def test_options_in_the_file_rule_and_the_name_helps_where_there_are_none(tmp_path: Path) -> None:
    weights = _as_published(_net().state_dict())
    ours = _save(tmp_path / "ckpt.best.pth.tar", weights, TSM_OPTIONS)
    assert load_checkpoint(ours).options == TSM_OPTIONS
    folder = tmp_path / "TSM_kinetics_RGB_resnet18_shift8_blockres_avg_segment8_e50"
    folder.mkdir()
    for path in (folder / "ckpt.best.pth.tar", folder / "ckpt_best.pth"):
        found = load_checkpoint(_save(path, weights)).options
        assert (found.dataset, found.num_segments, found.num_class) == ("kinetics", 8, 5)
        assert load_checkpoint(_save(path, weights, TSM_OPTIONS)).options == TSM_OPTIONS
    renamed = load_checkpoint(_save(tmp_path / "ckpt.best.pth.tar", weights))
    assert renamed.dataset is None
    with pytest.raises(InputError, match=r"ckpt\.best\.pth\.tar: the file holds no options.*rename it"):
        _ = renamed.options
    named = load_checkpoint(_save(tmp_path / "TSM_a_b_RGB_resnet18_shift8_blockres_avg_segment4_e1.pth", weights))
    assert (named.dataset, named.epoch, named.best_prec1) == ("a_b", 3, 12.5)


def test_name_without_shift_on_shifted_weights_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "TSM_jester_RGB_resnet18_avg_segment4_e2.pth", _as_published(_net().state_dict()))
    with pytest.raises(InputError, match=r"its name \(or folder\) says a network without temporal shift"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "jester", "num_class": 9}, "its options say 9 classes, its classifier has 5"),
        ({"dataset": "jester", "num_class": 5}, "its options say a network without temporal shift"),
        (
            {"dataset": "jester", "num_segments": "8"},
            "option num_segments must be a whole number of 1 or more, not '8'",
        ),
        ({"num_segments": 8}, "must be a dict, and name the data set"),
        ([1], "must be a dict"),
    ],
)
def test_options_that_contradict_the_weights_are_refused(tmp_path: Path, options: object, message: str) -> None:
    path = _save(tmp_path / "ckpt.pth.tar", _net().state_dict(), options=None)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "options": options}, path)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: .*{message}"):
        load_checkpoint(path)


def test_flow_stack_length_comes_from_the_first_convolution(tmp_path: Path) -> None:
    options = ModelOptions(dataset="jester", modality="Flow", arch="resnet18", num_class=5, new_length=3)
    path = _save(tmp_path / "TSM_jester_Flow_resnet18_avg_segment8_e2.pth", _net(options).state_dict())
    assert load_checkpoint(path).options.new_length == 3


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def _finetune(source: TSN, options: ModelOptions, target: ModelOptions, path: Path) -> tuple[TSN, str]:
    save_checkpoint({"state_dict": published_state_dict(source), "options": options.to_dict()}, path)
    net = _net(target, seed=5)
    checkpoint = load_checkpoint(path)
    report = load_for_finetune(net, checkpoint, dataset=target.dataset, num_class=target.num_class)
    return net, str(report)


def _changed(**changes: object) -> ModelOptions:
    return ModelOptions(**{**TSM_OPTIONS.to_dict(), "new_length": None, **changes})


def test_another_dataset_gets_a_new_head_and_the_same_keeps_it(tmp_path: Path) -> None:
    options = _changed(dataset="something")
    source = _random_weights(_net(options))
    fresh = _net(_changed(dataset="somethingv2"), seed=5)
    other, report = _finetune(source, options, _changed(dataset="somethingv2"), tmp_path / "a")
    assert "head new: trained on something, now somethingv2" in report
    assert torch.equal(other.new_fc.weight, fresh.new_fc.weight)
    assert torch.equal(other.base_model.layer1[0].conv1.net.weight, source.base_model.layer1[0].conv1.net.weight)
    same, report = _finetune(source, options, options, tmp_path / "b")
    assert "head kept" in report
    assert _equal(same, source)
    fewer, report = _finetune(source, options, _changed(dataset="something", num_class=2), tmp_path / "c")
    assert "head new" in report and fewer.new_fc.weight.shape == (2, 512)


def test_same_dataset_compares_the_whole_name(tmp_path: Path) -> None:
    weights = _as_published(_net().state_dict())
    tail = "RGB_resnet18_shift8_blockres_avg_segment4_e2.pth"
    v1 = load_checkpoint(_save(tmp_path / f"TSM_something_{tail}", weights))
    v2 = load_checkpoint(_save(tmp_path / f"TSM_somethingv2_{tail}", weights))
    unknown = load_checkpoint(_save(tmp_path / "something.pth", weights))
    assert [same_dataset(checkpoint, "something") for checkpoint in (v1, v2, unknown)] == [True, False, False]
    assert same_dataset(v1, "something", 5) and not same_dataset(v1, "something", 6)


def test_shift_comes_and_goes_in_finetuning(tmp_path: Path) -> None:
    tsn = _changed(is_shift=False)
    source = _random_weights(_net(tsn))
    shifted, _ = _finetune(source, tsn, TSM_OPTIONS, tmp_path / "a")
    assert torch.equal(shifted.base_model.layer3[1].conv1.net.weight, source.base_model.layer3[1].conv1.weight)
    back, _ = _finetune(shifted, TSM_OPTIONS, tsn, tmp_path / "b")
    assert _equal(back, source)


def test_non_local_blocks_come_and_go_in_finetuning(tmp_path: Path) -> None:
    wide = _changed(non_local=True)
    source = _random_weights(_net())
    net, report = _finetune(source, TSM_OPTIONS, wide, tmp_path / "a")
    assert "missing (not in the file, left as initialised): " in report and ".nl." in report
    clip = torch.rand(1, 12, 32, 32)
    with torch.no_grad():  # zero-initialised blocks change nothing
        assert torch.equal(net(clip), source(clip))
    back, report = _finetune(net, wide, TSM_OPTIONS, tmp_path / "b")
    assert "skipped (in the file, not used): " in report
    assert _equal(back, source)
    with pytest.raises(InputError, match=r"\.nl\."):
        load_into(_net(), net.state_dict())


@pytest.mark.parametrize(("modality", "length", "channels"), [("Flow", 5, 10), ("RGBDiff", 5, 15), ("RGBDiff", 1, 3)])
def test_rgb_to_another_modality_averages_the_first_convolution(tmp_path, modality, length, channels) -> None:
    source = _random_weights(_net())
    net, report = _finetune(source, TSM_OPTIONS, _changed(modality=modality, new_length=length), tmp_path / "a")
    mean = source.base_model.conv1.weight.mean(dim=1)
    assert net.base_model.conv1.weight.shape == (64, channels, 7, 7)
    for channel in range(channels):
        assert torch.equal(net.base_model.conv1.weight[:, channel], mean)
    assert f"mean of 3 input channels, repeated {channels} times" in report


# --- saving -----------------------------------------------------------------------------------------------------------


def test_saved_file_has_the_published_layout_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    net = _random_weights(_net()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.rand(1, 12, 32, 32)).sum().backward()
    optimizer.step()
    path = tmp_path / "ckpt.pth.tar"
    state = {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": published_state_dict(net),
        "optimizer": optimizer.state_dict(),
        "best_prec1": 1 / 3,
        "options": TSM_OPTIONS.to_dict(),
        "rng": rng_state(),
    }
    save_checkpoint(state, path)
    raw = torch.load(path, weights_only=True)
    assert all(key.startswith("module.") for key in raw["state_dict"])
    assert "module.base_model.layer1.0.conv1.net.weight" in raw["state_dict"]
    assert "module.new_fc.weight" in raw["state_dict"]
    assert all(value.is_contiguous() for value in raw["state_dict"].values())
    checkpoint = load_checkpoint(path)
    again = _net(seed=9).to(memory_format=torch.channels_last)
    load_into(again, checkpoint)
    assert _equal(again, net)
    assert again.base_model.layer1[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert (checkpoint.epoch, checkpoint.best_prec1, checkpoint.extra["arch"]) == (1, 1 / 3, "resnet18")
    other = torch.optim.SGD(again.parameters(), lr=0.1, momentum=0.9)
    other.load_state_dict(checkpoint.optimizer)
    for ours, theirs in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert torch.equal(ours["momentum_buffer"], theirs["momentum_buffer"])


def test_a_slice_of_a_large_buffer_is_saved_alone(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    net.weight = nn.Parameter(torch.zeros(1000, 2)[:2])
    assert published_state_dict(net)["module.weight"].untyped_storage().nbytes() == 16
