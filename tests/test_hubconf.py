"""torch.hub entry points, loaded from this clone."""

import pytest
import torch

import hubconf
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import published_state_dict
from ops.common.errors import InputError
from ops.models import build_model
from ops.non_local import NL3DWrapper
from ops.temporal_shift import TemporalShift
from tests.helpers import PROJECT

OPTIONS = ModelOptions(
    dataset="jester", arch="resnet18", num_segments=4, num_class=6, is_shift=True, shift_div=4, input_size=64
)


def load(name, *args, **kwargs):
    return torch.hub.load(str(PROJECT), name, *args, source="local", **kwargs)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of ours, with its options, and its network."""
    torch.manual_seed(0)
    model = build_model(OPTIONS).eval()
    torch.nn.init.normal_(model.new_fc.weight)
    path = tmp_path / "ckpt.pth.tar"
    torch.save({"epoch": 1, "state_dict": published_state_dict(model), "options": OPTIONS.to_dict()}, path)
    return path, model


def test_entry_points():
    # As torch.hub.list does, which has no form for a local folder.
    names = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
    assert names == [
        "tsm_mobilenetv2", "tsm_mobilenetv2_online", "tsm_resnet101", "tsm_resnet18", "tsm_resnet50",
        "tsm_resnet50_nl", "tsn_resnet50",
    ]  # fmt: skip
    assert hubconf.tsm_resnet50.__doc__ == "TSM on ResNet-50."
    for name in hubconf.dependencies:
        __import__(name)


@pytest.mark.parametrize(
    ("name", "arch", "num_shifts", "num_non_local", "online"),
    [
        ("tsn_resnet50", "resnet50", 0, 0, None),
        ("tsm_resnet18", "resnet18", 8, 0, False),
        ("tsm_resnet50", "resnet50", 16, 0, False),
        ("tsm_resnet50_nl", "resnet50", 16, 5, False),
        ("tsm_resnet101", "resnet101", 2 + 2 + 12 + 2, 0, False),
        ("tsm_mobilenetv2", "mobilenetv2", 10, 0, False),
        ("tsm_mobilenetv2_online", "mobilenetv2", 10, 0, True),
    ],
)
def test_random_networks(name, arch, num_shifts, num_non_local, online):
    with torch.device("meta"):
        model = load(name, num_classes=7)
    assert model.arch == arch
    assert model.num_class == model.new_fc.out_features == 7
    assert model.num_segments == 8
    shifts = [module for module in model.modules() if isinstance(module, TemporalShift)]
    assert len(shifts) == num_shifts
    assert {shift.online for shift in shifts} == (set() if online is None else {online})
    assert sum(isinstance(module, NL3DWrapper) for module in model.modules()) == num_non_local
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_defaults_and_keywords(capsys):
    model = load("tsm_resnet18")
    assert (model.num_class, model.input_size) == (400, 224)
    model = load("tsm_resnet18", num_classes=3, num_segments=2, modality="Flow", dropout=0, input_size=64)
    assert model.eval()(torch.zeros(1, 2 * 10, 64, 64)).shape == (1, 3)
    assert model.base_model.fc.out_features == 3
    assert "TSN" not in capsys.readouterr().out


def test_a_checkpoint_brings_its_options_and_weights(checkpoint):
    path, theirs = checkpoint
    ours = load("tsm_resnet18", pretrained=str(path)).eval()
    assert (ours.num_class, ours.num_segments, ours.shift_div, ours.input_size) == (6, 4, 4, 64)
    clip = torch.randn(2, 12, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip), atol=0, rtol=0)
    ours = load("tsm_resnet18", pretrained=str(path), num_segments=2, dropout=0)  # any form of head
    assert ours.num_segments == 2
    assert torch.equal(ours.base_model.fc.weight, theirs.new_fc.weight)


def test_another_number_of_classes_starts_a_new_head(checkpoint):
    path, theirs = checkpoint
    ours = load("tsm_resnet18", pretrained=str(path), num_classes=9)
    assert ours.new_fc.weight.shape == (9, 512)
    assert torch.equal(ours.base_model.layer4[1].conv2.weight, theirs.base_model.layer4[1].conv2.weight)


def test_a_bare_file_of_any_name(checkpoint, tmp_path):
    _, theirs = checkpoint
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    ours = load("tsm_resnet18", pretrained=str(path))
    assert (ours.num_class, ours.num_segments) == (6, 8)
    assert torch.equal(ours.new_fc.weight, theirs.new_fc.weight)


def test_a_published_name_once_fetched(tmp_path, monkeypatch):
    name = "TSM_kinetics_RGB_mobilenetv2_shift8_blockres_avg_segment8_e100_dense.pth"
    monkeypatch.setenv("TSM_PRETRAINED", str(tmp_path))
    with pytest.raises(InputError, match=r"pretrained\.fetch"):
        load("tsm_mobilenetv2", pretrained=name)
    theirs = build_model(ModelOptions(dataset="kinetics", arch="mobilenetv2", num_class=400, is_shift=True))
    torch.save({"state_dict": published_state_dict(theirs)}, tmp_path / name)
    ours = load("tsm_mobilenetv2", pretrained=name)
    assert torch.equal(ours.base_model.features[3].conv[0].net.weight, theirs.base_model.features[3].conv[0].net.weight)
    assert torch.equal(ours.new_fc.weight, theirs.new_fc.weight)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("tsm_resnet50", None, "base_model resnet18"),
        ("tsm_mobilenetv2", None, "base_model resnet18"),
        ("tsm_resnet18", True, r"pretrained\.fetch"),
        ("tsm_resnet18", "no_such_network", "no_such_network"),
    ],
)
def test_checkpoints_of_another_kind_and_unknown_names_are_refused(checkpoint, name, pretrained, message):
    with pytest.raises(InputError, match=message):
        load(name, pretrained=pretrained or str(checkpoint[0]))
