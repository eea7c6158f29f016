"""TSN: every architecture in every form trains and evaluates; keys, groups, partial BN, modalities, weights."""

import inspect
import itertools
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from archs.bn_inception import bninception
from archs.mobilenet_v2 import MobileNetV2
from ops.checkpoint.options import ModelOptions
from ops.common.errors import InputError
from ops.models import TSN, build_model
from ops.network.backbones import BACKBONES
from ops.non_local import NL3DWrapper
from ops.temporal_shift import TemporalPool, TemporalShift, make_temporal_pool
from ops.transforms import ClipNormalize, GroupMultiScaleCrop, GroupRandomHorizontalFlip


def make_tsn(arch="resnet18", modality="RGB", num_class=5, num_segments=2, **options):
    defaults = {"pretrain": "none", "print_spec": False, "dropout": 0.5}
    return TSN(num_class, num_segments, modality, arch, **defaults | options)


def random_clip(model, num_clips=2, size=64):
    return torch.randn(num_clips, model.num_segments * model.segment_channels, size, size)


def settle(model):
    """Weights under which every layer matters: BN statistics and zero-initialised layers drawn at random."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    nn.init.normal_(model.classifier.weight)
    return model.eval()


# --- every form trains and evaluates ----------------------------------------------------------------------------------


def forms():
    """Architecture x modality x place x (non-local, temporal pool); the deep ones once, in their fullest form."""
    modalities = ("RGB", "Flow", "RGBDiff")
    for modality, place, non_local, pool in itertools.product(
        modalities, (None, "blockres", "block"), (False, True), (False, True)
    ):
        yield "resnet18", modality, place, non_local, pool
    for modality, (place, extras) in itertools.product(modalities, [("blockres", True), ("block", False)]):
        yield "resnet50", modality, place, extras, extras
    for modality, place in itertools.product(modalities, (None, "blockres")):
        yield "mobilenetv2", modality, place, False, False
    for modality, place in itertools.product(modalities, (None, "block", "010010000101")):
        yield "BNInception", modality, place, False, False
    for arch in ("resnet34", "resnext50_32x4d", "wide_resnet50_2", "resnet101", "resnext101_32x8d"):
        yield arch, "RGB", "blockres", True, True
    yield "resnet152", "Flow", "blockres", True, False
    yield "wide_resnet101_2", "RGBDiff", "block", False, False


def test_every_architecture_is_in_the_forms():
    assert {form[0] for form in forms()} == set(BACKBONES)


@pytest.mark.parametrize(("arch", "modality", "place", "non_local", "pool"), list(forms()))
def test_trains_two_steps_and_evaluates(arch, modality, place, non_local, pool):
    torch.manual_seed(0)
    model = make_tsn(
        arch,
        modality,
        is_shift=place is not None,
        shift_place=place or "blockres",
        non_local=non_local,
        temporal_pool=pool,
        dropout=0,
        partial_bn=False,
    )
    assert any(isinstance(m, TemporalPool) for m in model.modules()) == pool
    assert any(isinstance(m, NL3DWrapper) for m in model.modules()) == non_local

    clip, labels = random_clip(model, size=32), torch.tensor([1, 3])
    groups = model.get_optim_policies()
    for group in groups:
        group["lr"] = 1e-3 * group["lr_mult"]
    optimizer = torch.optim.SGD(groups, lr=1e-3)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(model(clip), labels)
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), abs=0.2)  # head ~ N(0, 0.001): all classes alike
    assert losses[1] < losses[0]

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # statistics as after a long training: those of the data
    with torch.no_grad():
        model(clip)
        model.eval()
        scores = model(clip)
        assert scores.shape == (2, 5)
        assert scores.isfinite().all()
        # Clips do not mix. (BNs that saw four values blow rounding up; a mix-up is as large as the scores.)
        tolerance = 1e-3 * scores.abs().max().item()
        torch.testing.assert_close(scores[1:], model(clip[1:]), atol=tolerance, rtol=0)
        torch.testing.assert_close(scores, model(clip.unflatten(1, (2, -1))), atol=tolerance, rtol=0)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        (
            {"arch": "resnet50", "is_shift": True},
            {"base_model.conv1.weight": (64, 3, 7, 7), "base_model.layer3.5.conv1.net.weight": (256, 1024, 1, 1)},
            "base_model.fc.weight",
        ),
        (
            {"arch": "resnet50", "is_shift": True, "non_local": True, "dropout": 0},
            {"base_model.layer2.0.block.conv1.net.weight": (128, 256, 1, 1), "base_model.fc.weight": (5, 2048)},
            "new_fc.weight",
        ),
        (
            {"arch": "resnet50", "is_shift": True, "shift_place": "block", "temporal_pool": True, "non_local": True},
            {
                "base_model.layer1.0.net.conv1.weight": (64, 64, 1, 1),
                "base_model.layer2.net.0.block.net.conv1.weight": (128, 256, 1, 1),
                "base_model.layer2.net.0.nl.phi.0.weight": (256, 512, 1, 1, 1),
            },
            "base_model.layer3.net.0.nl.g.0.weight",
        ),
        (
            {"arch": "resnet101", "is_shift": True},
            {"base_model.layer3.22.conv1.net.weight": (256, 1024, 1, 1), "new_fc.bias": (5,)},
            "base_model.layer3.21.conv1.net.weight",
        ),
        (
            {"arch": "mobilenetv2", "is_shift": True},
            {"base_model.features.3.conv.0.net.weight": (144, 24, 1, 1), "new_fc.weight": (5, 1280)},
            "base_model.features.2.conv.0.net.weight",  # no shortcut, no shift
        ),
        (
            {"arch": "mobilenetv2", "is_shift": True, "online": True, "dropout": 0},
            {"base_model.features.16.conv.0.net.weight": (960, 160, 1, 1), "base_model.classifier.weight": (5, 1280)},
            "new_fc.weight",
        ),
        (
            {"arch": "BNInception", "is_shift": True, "shift_place": "block", "modality": "Flow"},
            {"base_model.conv1_7x7_s2.weight": (64, 10, 7, 7), "base_model.inception_3a_1x1.weight": (64, 192, 1, 1)},
            "base_model.fc.weight",
        ),
    ],
)
def test_keys(options, present, absent):
    with torch.device("meta"):
        state_dict = make_tsn(**options).state_dict()
    assert {key: tuple(state_dict[key].shape) for key in present} == present
    assert absent not in state_dict


@pytest.mark.parametrize(
    ("arch", "place"),
    [("resnet18", "blockres"), ("resnet18", "block"), ("mobilenetv2", "blockres"), ("BNInception", "block")],
)
@pytest.mark.parametrize("online", [False, True])
def test_the_online_shift_looks_back_only(arch, place, online):
    torch.manual_seed(0)
    model = settle(make_tsn(arch, num_segments=4, is_shift=True, shift_place=place, online=online))
    clip = torch.randn(1, 4, 3, 64, 64)
    changed = clip.clone()
    changed[:, 2] += 1
    with torch.no_grad():
        differ = (model.frame_scores(clip) != model.frame_scores(changed)).any(-1)[0].tolist()
    assert differ == [not online, not online, True, True]


# --- input and output -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 12, 32, 32), (2, 4, 3, 32, 32)])
def test_scores_are_the_mean_over_frames_of_the_2d_networks(shape):
    torch.manual_seed(0)
    model = settle(make_tsn(num_segments=4))
    clip = torch.randn(shape)
    frames = clip.reshape(8, 3, 32, 32)
    with torch.no_grad():
        per_frame = torch.stack([model.new_fc(model.base_model(frame[None]))[0] for frame in frames]).view(2, 4, 5)
        torch.testing.assert_close(model.frame_scores(clip), per_frame)
        torch.testing.assert_close(model(clip), per_frame.mean(1))
        model.before_softmax = False
        torch.testing.assert_close(model(clip), per_frame.softmax(-1).mean(1))


def test_identity_consensus_keeps_the_frames_scores():
    model = settle(make_tsn(num_segments=4, consensus_type="identity"))
    clip = random_clip(model)
    with torch.no_grad():
        assert model(clip).shape == (2, 4, 5)
        torch.testing.assert_close(model(clip), model.frame_scores(clip))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet18", {"temporal_pool": True, "non_local": True}),
        ("resnet18", {"shift_place": "block", "non_local": True}),
        ("resnet18", {"is_shift": False, "temporal_pool": True}),
        ("mobilenetv2", {}),
        ("BNInception", {"shift_place": "block"}),
    ],
)
def test_num_segments_can_be_changed(arch, options):
    options = {"is_shift": True, **options}
    model, other = (make_tsn(arch, num_segments=n, **options) for n in (8, 3))
    other.load_state_dict(settle(model).state_dict())
    other.eval()
    clips = {n: torch.randn(2, n, 3, 64, 64) for n in (8, 3)}
    with torch.no_grad():
        before = model(clips[8])
        model.num_segments = 3
        assert torch.equal(model(clips[3]), other(clips[3]))
        with pytest.raises(InputError, match="3 segments"):
            model(clips[8])
        model.num_segments = 8
        assert torch.equal(model(clips[8]), before)
    with pytest.raises(InputError, match="1 or more, got 0"):
        model.num_segments = 0
    assert model.num_segments == 8


def test_rgbdiff_takes_differences_of_consecutive_frames():
    torch.manual_seed(0)
    model = settle(make_tsn(modality="RGBDiff", new_length=3, num_segments=2))
    frames = torch.randn(2, 2, 4, 3, 32, 32)  # (N, T, L + 1, 3, H, W)
    with torch.no_grad():
        expected = torch.zeros(2, 5)
        for n in range(2):
            for t in range(2):
                differences = [frames[n, t, i + 1] - frames[n, t, i] for i in range(3)]  # later minus earlier
                expected[n] += model.new_fc(model.base_model(torch.cat(differences)[None]))[0] / 2
        torch.testing.assert_close(model(frames.reshape(2, 2 * 12, 32, 32)), expected)


@pytest.mark.parametrize(("modality", "channels"), [("RGB", 3), ("Flow", 4), ("RGBDiff", 6)])
def test_no_reshape_takes_what_the_backbone_takes(modality, channels):
    model = settle(make_tsn(modality=modality, new_length=1 if modality == "RGB" else 2))
    clip = random_clip(model)
    frames = clip.reshape(4, -1, 64, 64)
    if modality == "RGBDiff":
        frames = torch.cat((frames[:, 3:6] - frames[:, :3], frames[:, 6:] - frames[:, 3:6]), dim=1)
    assert frames.shape[1] == channels
    with torch.no_grad():
        torch.testing.assert_close(model(frames, no_reshape=True), model(clip))
        if modality != "RGBDiff":  # as the published test_models.py gives a TSN its clips
            torch.testing.assert_close(model(frames), model(clip))


def test_a_pool_of_a_published_script_is_the_constructors():
    """Published scripts pool after the constructor, with `temporal_pool` (main.py) or without (test_models.py)."""
    options = {"arch": "resnet18", "num_segments": 4, "is_shift": True, "non_local": True}
    torch.manual_seed(0)
    expected = settle(make_tsn(temporal_pool=True, **options))
    clip = random_clip(expected, size=32)
    for announced in (True, False):
        model = make_tsn(temporal_pool=announced, **options).eval()
        make_temporal_pool(nn.DataParallel(model).module.base_model, 4)
        model.load_state_dict(expected.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(model(clip), expected(clip))


def test_without_the_shift_its_options_may_be_none():
    """The published test_models.py passes None for both where a file's name says nothing of a shift."""
    model = make_tsn(is_shift=False, shift_div=None, shift_place=None)
    assert not any(isinstance(module, TemporalShift) for module in model.modules())


@pytest.mark.parametrize("shape", [(2, 13, 32, 32), (2, 9, 32, 32), (5, 3, 32, 32), (2, 3, 4, 32, 32), (12, 32, 32)])
def test_an_input_that_does_not_fit_is_refused(shape):
    with pytest.raises(InputError, match=r"4 segments of 3 channels \(RGB\).*\(N, 12, H, W\)"):
        make_tsn(num_segments=4)(torch.zeros(shape))


# --- construction -----------------------------------------------------------------------------------------------------


def test_signature():
    """Published scripts build it so: order, names and defaults are frozen; new options are keyword-only."""
    parameters = inspect.signature(TSN).parameters.values()
    positional = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    no_default = inspect.Parameter.empty
    expected = {
        "num_class": no_default, "num_segments": no_default, "modality": no_default, "base_model": "resnet101",
        "new_length": None, "consensus_type": "avg", "before_softmax": True, "dropout": 0.8, "img_feature_dim": 256,
        "crop_num": 1, "partial_bn": True, "print_spec": True, "pretrain": "imagenet", "is_shift": False,
        "shift_div": 8, "shift_place": "blockres", "fc_lr5": False, "temporal_pool": False, "non_local": False,
    }  # fmt: skip
    assert list(positional.items()) == list(expected.items())


def test_head():
    torch.manual_seed(0)
    model = make_tsn(num_class=400)
    assert isinstance(model.base_model.fc, nn.Dropout)
    assert model.base_model.fc.p == 0.5
    assert model.classifier is model.new_fc
    assert model.new_fc.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert model.new_fc.bias.eq(0).all()
    model = make_tsn("mobilenetv2", num_class=400, dropout=0)
    assert model.new_fc is None
    assert model.classifier is model.base_model.classifier
    assert model.classifier.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert model.classifier.bias.eq(0).all()


def test_sizes():
    for size, scaled in ((224, 256), (64, 73)):
        model = make_tsn(input_size=size)
        assert (model.input_size, model.crop_size, model.scale_size) == (size, size, scaled)


@pytest.mark.parametrize(
    ("arch", "modality", "mean", "std", "div255", "bgr"),
    [
        ("resnet18", "RGB", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], True, False),
        ("mobilenetv2", "RGB", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], True, False),
        ("resnet18", "Flow", [0.5], [0.226], True, False),
        ("resnet18", "RGBDiff", [0] * 3, [1] * 3, True, False),
        ("BNInception", "RGB", [104, 117, 128], [1] * 3, False, True),
        ("BNInception", "Flow", [128], [1], False, False),
        ("BNInception", "RGBDiff", [0] * 3, [1] * 3, False, True),
    ],
)
def test_normalization(arch, modality, mean, std, div255, bgr):
    model = make_tsn(arch, modality)
    channels = {"RGB": 3, "Flow": 10, "RGBDiff": 18}[modality]
    expected = {"mean": mean, "std": std, "div255": div255, "bgr": bgr, "modality": modality, "channels": channels}
    assert model.normalization == expected
    assert (model.input_mean, model.input_std) == (mean, std)
    frames = torch.randint(256, (2, 2, channels, 64, 64), dtype=torch.uint8)
    clip = ClipNormalize(**model.normalization)(frames.flatten(1, 2))
    pixels = frames.float() / (255 if div255 else 1)
    if bgr:
        pixels = pixels.unflatten(2, (-1, 3)).flip(3).flatten(2, 3)
    offset = torch.tensor(mean).repeat(channels // len(mean)).view(-1, 1, 1)
    scale = torch.tensor(std).repeat(channels // len(std)).view(-1, 1, 1)
    torch.testing.assert_close(clip.reshape(frames.shape), (pixels - offset) / scale, atol=2e-5, rtol=1e-5)
    assert model.eval()(clip).shape == (2, 5)


@pytest.mark.parametrize(
    ("modality", "flip", "scales", "flips"),
    [
        ("RGB", False, (1, 0.875, 0.75, 0.66), []),
        ("Flow", True, (1, 0.875, 0.75), [True]),
        ("RGBDiff", True, (1, 0.875, 0.75), [False]),
    ],
)
def test_augmentation(modality, flip, scales, flips):
    crop, *rest = make_tsn(modality=modality, input_size=96).get_augmentation(flip=flip).transforms
    assert isinstance(crop, GroupMultiScaleCrop)
    assert tuple(crop.scales) == scales
    assert tuple(crop.input_size) == (96, 96)
    assert all(isinstance(transform, GroupRandomHorizontalFlip) for transform in rest)
    assert [transform.is_flow for transform in rest] == flips


def test_print_spec(capsys):
    make_tsn()
    assert capsys.readouterr().out == ""
    make_tsn(print_spec=True, is_shift=True, num_segments=8)
    out = capsys.readouterr().out
    for word in ("resnet18", "RGB", "num_segments:       8", "1/8 blockres", "avg", "0.5"):
        assert word in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet51"}, "resnet18, resnet34, resnet50, .*mobilenetv2, BNInception"),
        ({"modality": "Audio"}, "RGB, Flow, RGBDiff"),
        ({"consensus_type": "rnn"}, "avg, identity"),
        ({"num_segments": 0}, "num_segments must be 1 or more, got 0"),
        ({"new_length": 5}, "new_length must be 1, got 5"),
        ({"dropout": 1.5}, "dropout"),
        ({"before_softmax": False, "consensus_type": "identity"}, "before_softmax"),
        (
            {"arch": "BNInception", "is_shift": True},
            "'blockres' does not work with BNInception.*'block', or a mask of 12",
        ),
        ({"arch": "BNInception", "is_shift": True, "shift_place": "101"}, "a mask of 12"),
        ({"arch": "BNInception", "non_local": True}, "ResNets"),
        ({"arch": "BNInception", "temporal_pool": True}, "ResNets"),
        ({"arch": "BNInception", "temporal_pool": True, "is_shift": True, "shift_place": "block"}, "ResNets"),
        ({"arch": "mobilenetv2", "non_local": True}, "ResNets"),
        ({"arch": "mobilenetv2", "temporal_pool": True}, "ResNets"),
        ({"is_shift": True, "shift_place": "everywhere"}, "blockres, block"),
    ],
)
def test_unknown_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_tsn(**options)


def test_build_model_follows_options_and_overrides():
    options = ModelOptions(
        dataset="jester", modality="Flow", arch="resnet18", num_segments=4, num_class=27, is_shift=True, shift_div=4,
        shift_place="block", temporal_pool=True, non_local=True, dropout=0.8, new_length=3, input_size=96,
    )  # fmt: skip
    model = build_model(options)
    assert (model.num_class, model.num_segments, model.new_length, model.input_size) == (27, 4, 3, 96)
    assert model.base_model.fc.p == 0.8
    shift = model.base_model.layer1[0]
    assert isinstance(shift, TemporalShift)
    assert (shift.n_segment, shift.fold_div, shift.online, shift.inplace) == (4, 4, False, True)
    model = build_model(options, num_class=3, dropout=0, online=True, inplace_shift=False, fc_lr5=True)
    assert model.base_model.fc.out_features == 3
    shift = model.base_model.layer1[0]
    assert (shift.online, shift.inplace) == (True, False)
    assert [len(group["params"]) for group in model.get_optim_policies()[-2:]] == [1, 1]
    with pytest.raises(InputError, match="--num_class"):
        build_model(ModelOptions(dataset="mine"))


# --- optimiser groups -------------------------------------------------------------------------------------------------

TABLE = [
    ("first_conv_weight", 1, 1),
    ("first_conv_bias", 2, 0),
    ("normal_weight", 1, 1),
    ("normal_bias", 2, 0),
    ("BN scale/shift", 1, 0),
    ("custom_ops", 1, 1),
    ("lr5_weight", 5, 1),
    ("lr10_bias", 10, 0),
]


@pytest.mark.parametrize("fc_lr5", [False, True])
@pytest.mark.parametrize("partial_bn", [False, True])
@pytest.mark.parametrize(
    ("arch", "modality", "options"),
    [
        ("resnet18", "RGB", {"is_shift": True, "non_local": True, "temporal_pool": True}),
        ("resnet18", "Flow", {"dropout": 0}),
        ("mobilenetv2", "RGB", {"is_shift": True, "dropout": 0}),
        ("BNInception", "Flow", {"is_shift": True, "shift_place": "block"}),
    ],
)
def test_groups_hold_every_trainable_parameter_once(arch, modality, options, partial_bn, fc_lr5):
    model = make_tsn(arch, modality, partial_bn=partial_bn, fc_lr5=fc_lr5, **options)
    groups = model.get_optim_policies()
    flow = {"first_conv_weight": (5, 1), "first_conv_bias": (10, 0)} if modality == "Flow" else {}
    table = [(name, *flow.get(name, (lr, decay))) for name, lr, decay in TABLE]
    assert [(group["name"], group["lr_mult"], group["decay_mult"]) for group in groups] == table
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_group = {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}
    first = "conv1_7x7_s2" if arch == "BNInception" else "features.0.0" if arch == "mobilenetv2" else "conv1"
    assert by_group["first_conv_weight"] == [f"base_model.{first}.weight"]
    assert by_group["first_conv_bias"] == ([f"base_model.{first}.bias"] if arch == "BNInception" else [])
    assert by_group["custom_ops"] == []
    head = "new_fc" if model.new_fc is not None else f"base_model.{model.last_layer_name}"
    assert by_group["lr5_weight" if fc_lr5 else "normal_weight"][-1] == f"{head}.weight"
    assert by_group["lr10_bias" if fc_lr5 else "normal_bias"][-1] == f"{head}.bias"
    assert len(by_group["lr5_weight"] + by_group["lr10_bias"]) == (2 if fc_lr5 else 0)
    num_norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    num_non_local = sum(isinstance(m, nn.BatchNorm3d) for m in model.modules())
    assert len(by_group["BN scale/shift"]) == 2 * (1 + num_non_local if partial_bn else num_norms)
    torch.optim.SGD(groups, lr=0.1)  # accepts empty groups


def test_a_parameter_of_an_unknown_kind_is_a_custom_op():
    model = make_tsn()
    model.base_model.gate = nn.PReLU()
    groups = {group["name"]: group["params"] for group in model.get_optim_policies()}
    assert groups["custom_ops"] == [model.base_model.gate.weight]


def test_synchronised_batchnorm_counts_as_batchnorm():
    model = make_tsn(partial_bn=False, non_local=True)
    before = [len(group["params"]) for group in model.get_optim_policies()]
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert [len(group["params"]) for group in model.get_optim_policies()] == before


# --- partial BN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
def test_partial_bn_and_its_thaw(sync):
    model = make_tsn(is_shift=True, non_local=True)
    if sync:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    norms = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    }
    learning = ["base_model.bn1", "base_model.layer2.0.nl.W.1", "base_model.layer3.0.nl.W.1"]
    assert set(learning) < set(norms)

    def trained():
        return [name for name, norm in norms.items() if norm.training]

    def trainable():
        return [name for name, norm in norms.items() if norm.weight.requires_grad and norm.bias.requires_grad]

    assert trained() == trainable() == learning
    model.eval()
    assert trained() == []
    model.train()
    assert trained() == trainable() == learning
    model.partialBN(False)
    assert trained() == trainable() == list(norms)
    model.eval()
    model.partialBN(True)
    assert trained() == []
    assert trainable() == learning
    model.partialBN(False)
    assert trained() == []
    assert model.train() is model
    assert trained() == trainable() == list(norms)


def test_frozen_batchnorms_keep_their_statistics():
    torch.manual_seed(0)
    model = make_tsn("mobilenetv2", partial_bn=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}
    model(random_clip(model))
    changed = {name for name, value in model.state_dict().items() if name in before and not value.equal(before[name])}
    assert changed == {"base_model.features.0.1.running_mean", "base_model.features.0.1.running_var"}


# --- weights to start from --------------------------------------------------------------------------------------------


def save(state_dict, path):
    torch.save(state_dict, path)
    return str(path)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv2", "BNInception"])
@pytest.mark.parametrize(
    ("modality", "new_length", "channels"), [("Flow", 5, 10), ("RGBDiff", 2, 6), ("RGBDiff", 1, 3)]
)
def test_first_conv_of_other_modalities_is_the_mean(arch, modality, new_length, channels, tmp_path):
    torch.manual_seed(0)
    rgb = BACKBONES[arch].build()
    path = save(rgb.state_dict(), tmp_path / "rgb.pth")
    model = make_tsn(arch, modality, new_length=new_length, pretrain=path)
    key = next(key for key, value in rgb.state_dict().items() if value.dim() == 4)
    weight = rgb.state_dict()[key]
    expected = sum(weight[:, i] for i in range(3)) / 3
    ours = model.base_model.state_dict()[key]
    assert ours.shape == (weight.shape[0], channels, *weight.shape[2:])
    for channel in range(channels):
        torch.testing.assert_close(ours[:, channel], expected)
    torch.manual_seed(0)  # the same from random weights
    random_model = make_tsn(arch, modality, new_length=new_length)
    torch.testing.assert_close(random_model.base_model.state_dict()[key], ours)


def backbone_scores(model, clip):
    """The backbone's features of each frame, without head."""
    with torch.no_grad():
        return model.base_model(clip.view(-1, 3, *clip.shape[2:]))


@pytest.mark.parametrize(
    ("arch", "theirs"),
    [
        ("resnet18", lambda: torchvision.models.resnet18(weights=None)),
        ("mobilenetv2", lambda: torchvision.models.mobilenet_v2(weights=None)),
        ("mobilenetv2", MobileNetV2),
        ("BNInception", bninception),
    ],
)
def test_a_bare_backbone_file(arch, theirs, tmp_path):
    torch.manual_seed(0)
    net = theirs().eval()
    model = make_tsn(arch, pretrain=save(net.state_dict(), tmp_path / "net.pth")).eval()
    head = "classifier" if arch == "mobilenetv2" else "fc"
    setattr(net, head, nn.Identity())
    clip = random_clip(model)
    with torch.no_grad():
        torch.testing.assert_close(backbone_scores(model, clip), net(clip.view(-1, 3, 64, 64)))


def test_a_converted_caffe_file(tmp_path):
    """BNInception files call the head `last_linear`, and some have BN parameters of shape (1, C)."""
    net = bninception()
    state_dict = {key.replace("fc.", "last_linear."): value for key, value in net.state_dict().items()}
    for key in state_dict:
        if "_bn." in key and state_dict[key].dim() == 1:
            state_dict[key] = torch.rand(1, len(state_dict[key]))
    model = make_tsn("BNInception", pretrain=save(state_dict, tmp_path / "bn_inception.pth"))
    for key, value in model.base_model.state_dict().items():
        assert torch.equal(value, state_dict[key].view(value.shape)), key


def test_a_checkpoint_of_another_form_gives_its_backbone(tmp_path):
    torch.manual_seed(0)
    old = settle(make_tsn(num_class=9, num_segments=4, is_shift=True, non_local=True))
    state_dict = {f"module.{key}": value for key, value in old.state_dict().items()}
    path = save({"epoch": 3, "state_dict": state_dict}, tmp_path / "old.pth.tar")
    model = make_tsn(is_shift=True, shift_place="block", temporal_pool=True, pretrain=path)
    assert torch.equal(model.base_model.layer2.net[0].net.conv1.weight, old.base_model.layer2[0].block.conv1.net.weight)
    assert torch.equal(model.base_model.layer4[1].net.bn2.running_var, old.base_model.layer4[1].bn2.running_var)
    assert model.new_fc.weight.shape == (5, 512)


def test_a_flow_file_keeps_its_first_conv(tmp_path):
    old = make_tsn(modality="Flow")
    nn.init.normal_(old.base_model.conv1.weight)
    path = save(old.state_dict(), tmp_path / "flow.pth")
    assert torch.equal(make_tsn(modality="Flow", pretrain=path).base_model.conv1.weight, old.base_model.conv1.weight)
    mean = old.base_model.conv1.weight.mean(1)
    for modality, channels in (("RGB", 3), ("RGBDiff", 15)):
        weight = make_tsn(modality=modality, pretrain=path).base_model.conv1.weight
        assert weight.shape[1] == channels
        torch.testing.assert_close(weight[:, channels - 1], mean)


def test_a_file_of_another_architecture_is_refused_with_keys(tmp_path):
    path = save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(InputError, match=r"resnet34\.pth.*layer1\.2\.conv1\.weight"):
        make_tsn(pretrain=path)
    with pytest.raises(InputError, match=r"nowhere\.pth"):
        make_tsn(pretrain=str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv2"])
def test_imagenet_weights_come_from_the_hubs_cache(arch, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = {"resnet18": "resnet18-f37072fd.pth", "mobilenetv2": "mobilenet_v2-b0353104.pth"}[arch]
    net = getattr(torchvision.models, "mobilenet_v2" if arch == "mobilenetv2" else arch)(weights=None).eval()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save(net.state_dict(), folder / name)
    model = make_tsn(arch, pretrain="imagenet").eval()
    setattr(net, "classifier" if arch == "mobilenetv2" else "fc", nn.Identity())
    clip = random_clip(model)
    with torch.no_grad():
        torch.testing.assert_close(backbone_scores(model, clip), net(clip.view(-1, 3, 64, 64)))

    (folder / name).write_bytes(b"cut")
    with pytest.raises(InputError, match=f"{name}.*delete it"):
        make_tsn(arch, pretrain="imagenet")


def test_imagenet_weights_offline_say_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError) as error:
        make_tsn("resnet18", pretrain="imagenet")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(error.value)
    assert "no route to host" in str(error.value)
    with pytest.raises(InputError, match=r"BNInception.*--pretrain FILE.*--pretrain none"):
        make_tsn("BNInception", pretrain="imagenet")


def test_imagenet_weights_are_torchvisions_first_version():
    names = {row.imagenet.rsplit("/", 1)[1].removesuffix(".pth") for row in BACKBONES.values() if row.imagenet}
    assert names == {
        "resnet18-f37072fd", "resnet34-b627a593", "resnet50-0676ba61", "resnet101-63fe2227", "resnet152-394f9c45",
        "resnext50_32x4d-7cdf4587", "resnext101_32x8d-8ba56ff5", "wide_resnet50_2-95faca4d",
        "wide_resnet101_2-32ee1156", "mobilenet_v2-b0353104",
    }  # fmt: skip
