"""TemporalShift in whole networks: insertion, equality of the forms, memory, fallbacks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from archs.bn_inception import BLOCK_NAMES, bninception
from archs.mobilenet_v2 import MobileNetV2
from benchmarks.step import saved_storages
from ops import temporal_shift
from ops.common.errors import InputError
from ops.temporal_shift import TemporalShift, make_temporal_pool, make_temporal_shift
from tests.network.test_shift_ops import FORMATS, loop_shift

NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=5),
    "mobilenetv2": lambda: MobileNetV2(n_class=5),
}


def build(name: str, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETS[name]()


def train_step(net: nn.Module, x: Tensor) -> tuple[list[Tensor], int]:
    """Output and all gradients of one training step, and the bytes that autograd saved for it."""
    x = x.clone().requires_grad_()
    out = net.train()(x)
    loss = out.square().sum()
    saved_bytes = sum(saved_storages(loss).values())
    loss.backward()
    return [out, x.grad, *(parameter.grad for parameter in net.parameters())], saved_bytes


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make_pair(name: str, memory_format: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    """The same network with the plain and with the in-place shift."""
    plain, inplace = (build(name).to(memory_format=memory_format) for _ in range(2))
    assert make_temporal_shift(plain, 4, inplace=False) == make_temporal_shift(inplace, 4)
    return plain, inplace


def assert_equal_training(plain: nn.Module, inplace: nn.Module, x: Tensor) -> tuple[int, int]:
    """One step of each, compared to the last bit; the bytes each saved."""
    (expected, plain_bytes), (got, inplace_bytes) = train_step(plain, x), train_step(inplace, x)
    assert len(got) == len(expected) > 50
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a, b)
    for (key, a), b in zip(plain.state_dict().items(), inplace.state_dict().values(), strict=True):
        assert torch.equal(a, b), key  # BN statistics
    return plain_bytes, inplace_bytes


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_whole_network_in_place_equals_plain_and_saves_what_2d_saves(name, memory_format, threads) -> None:
    threads(1)
    x = torch.randn(8, 3, 48, 48).to(memory_format=memory_format)
    plain_bytes, inplace_bytes = assert_equal_training(*make_pair(name, memory_format), x)
    _, flat_bytes = train_step(build(name).to(memory_format=memory_format), x)
    assert inplace_bytes == flat_bytes
    if name != "mobilenetv2":  # there nothing else keeps the unshifted input, so the copy takes its place
        assert inplace_bytes < plain_bytes


# Few and small: where other programs use the cores, two threads wait for each other in every operation.
@pytest.mark.parametrize(
    ("name", "memory_format"),
    [("resnet18", FORMATS[0]), ("resnet18", FORMATS[1]), ("mobilenetv2", FORMATS[1])],
)
def test_whole_network_in_place_equals_plain_with_two_threads(name, memory_format, threads) -> None:
    threads(2)
    assert_equal_training(*make_pair(name, memory_format), torch.randn(4, 3, 32, 32).to(memory_format=memory_format))


@pytest.mark.parametrize("name", NETS)
def test_fold_0_is_the_2d_network(name: str) -> None:
    x = torch.randn(4, 3, 64, 64)
    flat, shifted = build(name), build(name, seed=1)
    changed = make_temporal_shift(shifted, 4, n_div=4096)
    renamed = {
        next((key.replace(c, f"{c}.net", 1) for c in changed if key.startswith(f"{c}.")), key): value
        for key, value in flat.state_dict().items()
    }
    shifted.load_state_dict(renamed, strict=True)
    expected, got = train_step(flat, x)[0], train_step(shifted, x)[0]
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert torch.equal(flat.eval()(x), shifted.eval()(x))


def test_the_shortcut_sees_the_unshifted_input() -> None:
    net = build("resnet18").eval()
    block = net.layer1[0]
    x = torch.randn(8, 64, 8, 8).relu()

    def by_hand(x: Tensor, shortcut: Tensor) -> Tensor:
        inner = F.relu(block.bn1(F.conv2d(x, conv1.weight, padding=1)))
        return F.relu(block.bn2(block.conv2(inner)) + shortcut)

    conv1 = block.conv1
    shifted = loop_shift(x, 4, 8)
    expected = {"blockres": by_hand(shifted, x), "block": by_hand(shifted, shifted)}
    assert not torch.allclose(expected["blockres"], expected["block"])
    for place, value in expected.items():
        net = build("resnet18").eval()
        make_temporal_shift(net, 4, place=place)
        with torch.no_grad():
            assert torch.equal(net.layer1[0](x), value)
        assert torch.equal(net.layer1[0](x), value)


def blocks_of(counts: tuple[int, ...], suffix: str, every: int = 1) -> list[str]:
    return [f"layer{s}.{i}{suffix}" for s, count in enumerate(counts, 1) for i in range(0, count, every)]


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("resnet18", "blockres", blocks_of((2, 2, 2, 2), ".conv1")),
        ("resnet50", "blockres", blocks_of((3, 4, 6, 3), ".conv1")),
        ("resnet50", "block", blocks_of((3, 4, 6, 3), "")),
        ("resnet101", "blockres", blocks_of((3, 4, 23, 3), ".conv1", 2)),
        ("resnet101", "block", blocks_of((3, 4, 23, 3), "")),
        ("resnet152", "blockres", blocks_of((3, 8, 36, 3), ".conv1", 2)),
        ("wide_resnet50_2", "blockres", blocks_of((3, 4, 6, 3), ".conv1")),
        ("mobilenetv2", "blockres", [f"features.{i}.conv.0" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]),
    ],
)
def test_places(name: str, place: str, expected: list[str]) -> None:
    with torch.device("meta"):
        net = MobileNetV2() if name == "mobilenetv2" else torchvision.models.get_model(name)
    assert make_temporal_shift(net, 8, n_div=4, place=place) == expected
    shifts = {key: module for key, module in net.named_modules() if isinstance(module, TemporalShift)}
    assert list(shifts) == expected
    assert {(m.n_segment, m.fold_div, m.online, m.inplace) for m in shifts.values()} == {(8, 4, False, True)}
    with pytest.raises(InputError, match=r"already|insert the shift first"):
        make_temporal_shift(net, 8, place=place)


def test_what_cannot_be_shifted_is_refused() -> None:
    with torch.device("meta"):
        for name in ("vgg11", "densenet121"):
            with pytest.raises(InputError, match=r"no blocks to shift found in (VGG|DenseNet): name the convolutions"):
                make_temporal_shift(torchvision.models.get_model(name), 8)
        with pytest.raises(InputError, match="blockres, block"):
            make_temporal_shift(torchvision.models.resnet18(), 8, place="everywhere")
        for options in ({"place": "block"}, {"temporal_pool": True}):
            with pytest.raises(InputError, match="for ResNets"):
                make_temporal_shift(MobileNetV2(), 8, **options)
        with pytest.raises(InputError, match="temporal_pool is for ResNets"):
            make_temporal_pool(MobileNetV2(), 8)


class _OddConv(nn.Conv2d):
    pass


def _hooked() -> nn.Module:
    conv = nn.Conv2d(16, 8, 1)
    conv.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return conv


def _overridden() -> nn.Module:
    conv = nn.Conv2d(16, 8, 1)
    weight = conv.weight
    conv.forward = lambda x: F.conv2d(x * 3, weight)
    return conv


FALLBACKS: dict[str, Callable[[], nn.Module]] = {
    "sequence": lambda: nn.Sequential(nn.Conv2d(16, 8, 1)),
    "subclass": lambda: _OddConv(16, 8, 1),
    "transposed": lambda: nn.ConvTranspose2d(16, 8, 1),
    "reflect padding": lambda: nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"),
    "named padding": lambda: nn.Conv2d(16, 8, 3, padding="same"),
    "hooked": _hooked,
    "parametrised": lambda: parametrizations.weight_norm(nn.Conv2d(16, 8, 1)),
    "overridden": _overridden,
}


@pytest.fixture
def no_inplace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the in-place form ran")

    monkeypatch.setattr(temporal_shift, "shift_conv", refuse)


@pytest.mark.parametrize("name", FALLBACKS)
def test_modules_that_are_more_than_a_convolution_get_a_shifted_copy(name: str, no_inplace: None) -> None:
    torch.manual_seed(0)
    net = FALLBACKS[name]()
    x = torch.randn(8, 16, 4, 4)
    assert torch.equal(TemporalShift(net, 4, inplace=True)(x), net(loop_shift(x, 4, 8)))


def test_tensors_that_are_not_dense_get_a_shifted_copy(no_inplace: None) -> None:
    conv = nn.Conv2d(16, 8, 1)
    for x in (torch.randn(1, 16, 4, 4).expand(8, -1, -1, -1), torch.randn(8, 16, 4, 9)[..., ::2]):
        torch.testing.assert_close(TemporalShift(conv, 4, inplace=True)(x), conv(loop_shift(x, 4, 8)))


def test_global_hooks_still_see_the_convolution(no_inplace: None) -> None:
    conv, seen = nn.Conv2d(16, 8, 1), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: seen.append(module))
    try:
        TemporalShift(conv, 4, inplace=True)(torch.randn(8, 16, 4, 4))
    finally:
        handle.remove()
    assert conv in seen


@pytest.mark.parametrize("online", (False, True))
def test_compilers_and_exporters_get_the_plain_form(online: bool, no_inplace: None) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 8, 3, padding=1)
    shifted = TemporalShift(conv, 4, inplace=True, online=online)
    x = torch.randn(8, 16, 4, 4)
    expected = conv(loop_shift(x, 4, 8, online))
    compiled = torch.compile(shifted, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), expected)
    batch = 4 * torch.export.Dim("clips", min=1, max=64)
    exported = torch.export.export(shifted, (x,), dynamic_shapes=({0: batch},)).module()
    assert torch.equal(exported(x), expected)
    assert torch.equal(exported(torch.cat((x, x[4:]))), torch.cat((expected, expected[4:])))
    assert torch.equal(torch.func.vmap(shifted)(torch.stack((x, x)))[1], expected)
    primal, tangent = torch.func.jvp(shifted, (x,), (torch.ones_like(x),))
    assert torch.equal(primal, expected)
    assert tangent.shape == expected.shape


@pytest.mark.filterwarnings("ignore")
def test_jit_trace_gets_the_plain_form(no_inplace: None) -> None:
    conv = nn.Conv2d(16, 8, 1)
    x = torch.randn(8, 16, 4, 4)
    traced = torch.jit.trace(TemporalShift(conv, 4, inplace=True), x, check_trace=False)
    for clips in (2, 1):
        assert torch.equal(traced(x[: 4 * clips]), conv(loop_shift(x[: 4 * clips], 4, 8)))


def test_distributed_data_parallel_gives_the_same_gradients(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = torch.randn(8, 3, 64, 64)
        plain, inplace = make_pair("resnet18", FORMATS[0])
        expected = train_step(plain, x)[0]
        got = train_step(nn.parallel.DistributedDataParallel(inplace), x)[0]
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_bninception_is_shifted_by_blocks_once():
    net = bninception(num_classes=5)
    assert make_temporal_shift(net, 4, place="block") == list(BLOCK_NAMES[1:])
    with pytest.raises(InputError, match="already"):
        make_temporal_shift(net, 4, place="block")
    assert make_temporal_shift(bninception(num_classes=5), 4, place="110000000001") == ["1", "2", "5b"]
    for place in ("blockres", "11"):
        with pytest.raises(InputError, match="'block', or a mask of 12 characters"):
            make_temporal_shift(bninception(num_classes=5), 4, place=place)
