"""Non-local blocks: the paper's formula, where they stand, and what their keys are called."""

import pytest
import torch
import torchvision
from torch import nn

from archs.mobilenet_v2 import MobileNetV2
from ops.common.errors import InputError
from ops.non_local import NL3DWrapper, NONLocalBlock1D, NONLocalBlock2D, NONLocalBlock3D, make_non_local
from ops.temporal_shift import make_temporal_pool, make_temporal_shift


def opened(block):
    """A block whose output BN lets something through."""
    nn.init.uniform_(block.W[1].weight, 0.5, 1.5)
    nn.init.uniform_(block.W[1].bias, -0.5, 0.5)
    return block


def formula(block, x):
    """y = softmax(theta(x)^T phi(x)) g(x); z = BN(W y) + x, position by position (paper, eq. 1, 3, 6)."""
    theta, phi, g = block.theta(x), block.phi(x), block.g(x)
    y = torch.zeros_like(theta)
    for n in range(x.shape[0]):
        keys, values = phi[n].flatten(1), g[n].flatten(1)  # (C / 2, positions)
        for t in range(x.shape[2]):
            for h in range(x.shape[3]):
                for w in range(x.shape[4]):
                    f = (theta[n, :, t, h, w] @ keys).exp()
                    y[n, :, t, h, w] = values @ (f / f.sum())
    return x + block.W(y)


def test_block_is_the_papers_formula():
    torch.manual_seed(0)
    block = opened(NONLocalBlock3D(8)).double().train()
    x = torch.randn(2, 8, 3, 4, 6, dtype=torch.double)
    torch.testing.assert_close(block(x), formula(block, x))


@pytest.mark.parametrize("bn_layer", [True, False])
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize(("Block", "sides"), [(NONLocalBlock1D, (6,)), (NONLocalBlock2D, (4, 6))])
def test_blocks_of_fewer_dimensions(Block, sides, sub_sample, bn_layer):
    torch.manual_seed(0)
    block = Block(8, inter_channels=3, sub_sample=sub_sample, bn_layer=bn_layer).double()
    x = torch.randn(2, 8, *sides, dtype=torch.double)
    assert torch.equal(block(x), x)
    nn.init.normal_((block.W[1] if bn_layer else block.W).weight)

    def project(layer, pool):
        y = torch.einsum("oc,nc...->no...", layer.weight.flatten(1), x) + layer.bias.view(-1, *[1] * len(sides))
        if pool:
            for dim in range(2, y.dim()):
                y = y.unflatten(dim, (-1, 2)).amax(dim + 1)
        return y.flatten(2)

    g, phi = (getattr(block, name)[0] if sub_sample else getattr(block, name) for name in ("g", "phi"))
    attention = (project(block.theta, False).mT @ project(phi, sub_sample)).softmax(-1)  # (N, positions, keys)
    y = (attention @ project(g, sub_sample).mT).mT.reshape(2, 3, *sides)
    torch.testing.assert_close(block(x), x + block.W(y))
    assert isinstance(block.W, nn.Sequential) == bn_layer


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_the_formula(memory_format):
    torch.manual_seed(0)
    wrapper = NL3DWrapper(torchvision.models.resnet18(weights=None).layer1[0], n_segment=2).double().eval()
    opened(wrapper.nl)
    x = torch.randn(4, 64, 4, 4, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    parameters = [x, *wrapper.parameters()]

    out = wrapper(x)
    ours = torch.autograd.grad(out.square().sum(), parameters)
    clip = wrapper.block(x).unflatten(0, (2, 2)).transpose(1, 2)  # (N*T, C, H, W) -> (N, C, T, H, W)
    expected = formula(wrapper.nl, clip).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), parameters))


def test_a_new_block_changes_nothing_and_learns():
    torch.manual_seed(0)
    block = NONLocalBlock3D(8).train()
    x = torch.randn(2, 8, 3, 4, 4)
    out = block(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert block.W[1].weight.grad.abs().sum() > 0


def test_clips_do_not_see_each_other():
    torch.manual_seed(0)
    wrapper = NL3DWrapper(torchvision.models.resnet18(weights=None).layer1[0], n_segment=3).eval()
    opened(wrapper.nl)
    x = torch.randn(6, 64, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(wrapper(x)[3:], wrapper(x[3:]))
        first = x.clone()
        first[2] += 1  # one frame of a clip is seen by all of it
        assert (wrapper(first)[:3] != wrapper(x)[:3]).flatten(1).any(1).all()


def test_keys_and_shapes():
    net = torchvision.models.resnet50(weights=None)
    make_temporal_shift(net, 8)
    make_non_local(net, 8)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["layer2.0.nl.theta.weight"] == (256, 512, 1, 1, 1)
    assert shapes["layer2.0.nl.g.0.weight"] == (256, 512, 1, 1, 1)
    assert shapes["layer2.0.nl.W.0.weight"] == (512, 256, 1, 1, 1)
    assert shapes["layer2.0.nl.W.1.running_mean"] == (512,)
    assert shapes["layer3.4.nl.W.1.weight"] == (1024,)
    assert "layer2.0.block.conv1.net.weight" in shapes
    # The published order: an optimiser's state knows its parameters by number.
    assert [name for name, _ in net.layer2[0].nl.named_children()] == ["g", "W", "theta", "phi"]


@pytest.mark.parametrize(
    ("arch", "names", "num_blocks"),
    [
        ("resnet18", ["layer2.0", "layer3.0"], [2, 2, 2, 2]),
        ("resnet34", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"], [3, 4, 6, 3]),
        ("resnet50", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"], [3, 4, 6, 3]),
        ("resnet101", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"], [3, 4, 23, 3]),
        ("resnext50_32x4d", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"], [3, 4, 6, 3]),
    ],
)
def test_positions(arch, names, num_blocks):
    with torch.device("meta"):
        net = getattr(torchvision.models, arch)(weights=None)
        assert make_non_local(net, 8) == names
    assert [n for n, m in net.named_modules() if isinstance(m, NL3DWrapper)] == names
    assert [len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)] == num_blocks


@pytest.mark.parametrize("place", ["blockres", "block"])
def test_a_new_block_changes_nothing_in_a_shifted_and_pooled_resnet(place):
    def build(non_local):
        torch.manual_seed(0)
        net = torchvision.models.resnet18(weights=None)
        make_temporal_shift(net, 4, place=place, temporal_pool=True)
        if non_local:
            make_non_local(net, 2)
        make_temporal_pool(net, 4)
        return net.eval()

    plain, with_blocks = build(False), build(True)
    state_dict = {key.replace(".nl.", ".").replace(".block.", "."): v for key, v in with_blocks.state_dict().items()}
    plain.load_state_dict({key: state_dict[key] for key in plain.state_dict()})
    x = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(with_blocks(x), plain(x))


def test_other_networks_and_a_second_insertion_are_refused():
    with pytest.raises(InputError, match="ResNets"):
        make_non_local(MobileNetV2(), 8)
    net = torchvision.models.resnet18(weights=None)
    make_non_local(net, 8)
    with pytest.raises(InputError, match="already"):
        make_non_local(net, 8)
