"""MobileNetV2 and BNInception: layouts of keys, shapes, and the same numbers as a plain second form."""

import pytest
import torch
import torchvision
from torch.nn import functional as F

from archs.bn_inception import BLOCK_NAMES, bninception
from archs.mobilenet_v2 import InvertedResidual, MobileNetV2, from_torchvision, mobilenet_v2
from ops.common.errors import InputError
from ops.network.backbones import imagenet_state_dict


def randomise_batchnorm(net):
    """Statistics and affine unlike their defaults, so that a mix-up of two layers shows."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)


# --- MobileNetV2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width_mult", [1.0, 0.5, 1.4])
def test_mobilenet_gives_torchvisions_outputs_with_torchvisions_weights(width_mult):
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=width_mult, num_classes=11).eval()
    randomise_batchnorm(theirs)
    ours = MobileNetV2(n_class=11, width_mult=width_mult).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))  # strict: every key has its place
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_mobilenet_leaves_its_own_layout_as_it_is():
    state_dict = MobileNetV2(n_class=3).state_dict()
    assert list(from_torchvision(state_dict)) == list(state_dict)


def test_mobilenet_keys():
    net = MobileNetV2(n_class=27)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.0.weight"] == (32, 1, 3, 3)  # no expansion: depthwise first
    assert shapes["features.1.conv.3.weight"] == (16, 32, 1, 1)
    assert shapes["features.2.conv.0.weight"] == (96, 16, 1, 1)
    assert shapes["features.17.conv.6.weight"] == (320, 960, 1, 1)
    assert shapes["features.18.0.weight"] == (1280, 320, 1, 1)
    assert shapes["classifier.weight"] == (27, 1280)
    assert sum(p.numel() for p in MobileNetV2().parameters()) == 3_504_872  # torchvision's documented count


def test_mobilenet_by_its_published_calls(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    randomise_batchnorm(theirs)
    torch.save(theirs.state_dict(), tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(mobilenet_v2().eval()(x), theirs(x))
        assert not torch.allclose(mobilenet_v2(False).eval()(x), theirs(x))
        assert MobileNetV2(11, 64, 0.5).eval()(x).shape == (1, 11)
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        MobileNetV2(input_size=100)


def test_mobilenet_blocks():
    blocks = {i: m for i, m in enumerate(MobileNetV2().features) if isinstance(m, InvertedResidual)}
    assert {i: len(m.conv) for i, m in blocks.items()} == {1: 5, **dict.fromkeys(range(2, 18), 8)}
    # a shortcut where a stage repeats: strides and channels of the paper's table 2
    assert [i for i, m in blocks.items() if m.use_res_connect] == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]


# --- BNInception ------------------------------------------------------------------------------------------------------


def test_bninception_starts_with_torchs_own_weights_in_the_order_of_its_layers():
    torch.manual_seed(3)
    net = bninception(num_classes=5)
    torch.manual_seed(3)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            again = torch.nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size)
        elif isinstance(layer, torch.nn.Linear):
            again = torch.nn.Linear(layer.in_features, layer.out_features)
        else:
            continue
        assert torch.equal(layer.weight, again.weight) and torch.equal(layer.bias, again.bias)


def test_bninception_keys():
    net = bninception(num_classes=5)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["conv1_7x7_s2.weight"] == (64, 3, 7, 7)
    assert shapes["conv1_7x7_s2_bn.running_mean"] == (64,)
    assert shapes["inception_3a_3x3_reduce_bn.weight"] == (64,)
    assert shapes["inception_3a_double_3x3_2.weight"] == (96, 96, 3, 3)
    assert shapes["inception_4c_double_3x3_reduce.weight"] == (128, 576, 1, 1)
    assert shapes["inception_4e_double_3x3_2.weight"] == (256, 256, 3, 3)
    assert shapes["inception_5b_pool_proj.weight"] == (128, 1024, 1, 1)
    assert shapes["fc.weight"] == (5, 1024)
    assert "inception_3c_1x1.weight" not in shapes
    assert "inception_4e_pool_proj.weight" not in shapes
    assert sum(p.numel() for p in bninception().parameters()) == 11_295_240  # of the converted Caffe network


@pytest.mark.parametrize(("size", "side"), [(224, 7), (256, 8), (240, 8), (112, 4), (64, 2), (75, 3)])
def test_bninception_takes_other_sizes(size, side):
    net = bninception(num_classes=5).eval()
    with torch.no_grad():
        assert net.features(torch.randn(1, 3, size, size)).shape == (1, 1024, side, side)
        assert net(torch.randn(1, 3, size, size)).shape == (1, 5)


def test_bninception_blocks_against_the_layers_one_by_one():
    torch.manual_seed(0)
    net = bninception(num_classes=5).eval()
    randomise_batchnorm(net)

    weights = net.state_dict()

    def conv(x, name, **kwargs):
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **kwargs)
        bn = [weights[f"{name}_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn).relu()

    def branches(x, name, stride):
        single = conv(conv(x, f"{name}_3x3_reduce"), f"{name}_3x3", padding=1, stride=stride)
        double = conv(conv(x, f"{name}_double_3x3_reduce"), f"{name}_double_3x3_1", padding=1)
        return [single, conv(double, f"{name}_double_3x3_2", padding=1, stride=stride)]

    def inception(x, name, pool):
        return torch.cat([conv(x, f"{name}_1x1"), *branches(x, name, 1), conv(pool(x), f"{name}_pool_proj")], dim=1)

    def reduction(x, name):
        return torch.cat([*branches(x, name, 2), F.max_pool2d(x, 3, 2, ceil_mode=True)], dim=1)

    def average(x):
        return F.avg_pool2d(x, 3, 1, 1)

    with torch.no_grad():
        clip = torch.randn(2, 3, 64, 96)
        x = F.max_pool2d(conv(clip, "conv1_7x7_s2", stride=2, padding=3), 3, 2, ceil_mode=True)
        x = F.max_pool2d(conv(conv(x, "conv2_3x3_reduce"), "conv2_3x3", padding=1), 3, 2, ceil_mode=True)
        x = inception(inception(x, "inception_3a", average), "inception_3b", average)
        x = reduction(x, "inception_3c")
        for block in "abcd":
            x = inception(x, f"inception_4{block}", average)
        x = reduction(x, "inception_4e")
        x = inception(x, "inception_5a", average)
        x = inception(x, "inception_5b", lambda x: F.max_pool2d(x, 3, 1, 1))
        torch.testing.assert_close(net.features(clip), x)
        torch.testing.assert_close(net(clip), net.fc(x.mean((2, 3))))


def test_bninception_shifts_where_the_mask_says():
    seen = []

    def record(x):
        seen.append(x.shape[1])
        return x

    net = bninception(num_classes=5).eval()
    # inputs of blocks 1, 2, 3a-3c, 4a-4e, 5a, 5b
    channels = [3, 64, 192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024]
    for mask in ("111111111111", "000000000000", "010010000101"):
        seen.clear()
        names = net.build_temporal_ops(mask, record)
        assert names == [name for name, flag in zip(BLOCK_NAMES, mask, strict=True) if flag == "1"]
        net(torch.zeros(1, 3, 64, 64))
        assert seen == [count for count, flag in zip(channels, mask, strict=True) if flag == "1"]


@pytest.mark.parametrize("mask", ["", "1" * 11, "1" * 13, "11111111111x"])
def test_bninception_refuses_other_masks(mask):
    with pytest.raises(ValueError, match="12 characters"):
        bninception(num_classes=5).build_temporal_ops(mask, lambda x: x)


def test_without_weights_to_download_the_error_names_another_arch():
    with pytest.raises(InputError, match="choose another --arch such as resnet50, give a file with --pretrain FILE"):
        imagenet_state_dict("BNInception")
