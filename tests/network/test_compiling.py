"""The shift that torch.compile does not look into computes what the plain one does."""

import pytest
import torch

from ops.common.errors import InputError
from ops.models import TSN
from ops.network.compiling import hide_shifts
from ops.temporal_shift import TemporalShift


@pytest.mark.parametrize(
    ("arch", "options", "num_shifts"),
    [
        ("resnet18", {}, 8),
        ("resnet18", {"shift_place": "block"}, 0),  # wraps whole blocks: these stay as they are
        ("mobilenetv2", {"online": True}, 10),
        ("resnet18", {"shift_div": 1024}, 8),  # more parts than channels: nothing moves
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_hidden_shifts_compute_the_same(arch, options, num_shifts, memory_format):
    torch.manual_seed(0)
    model = TSN(5, 4, "RGB", arch, pretrain="none", print_spec=False, is_shift=True, **options).eval()
    model.to(memory_format=memory_format)
    clip = torch.randn(2, 12, 32, 32)
    with torch.no_grad():
        expected = model(clip)
        assert hide_shifts(model) == num_shifts
        assert torch.equal(model(clip), expected)
    assert sum(isinstance(module, TemporalShift) for module in model.modules()) == (0 if num_shifts else 8)


def test_the_operator_is_sound_and_leaves_its_input_as_it_was():
    shift = TemporalShift(torch.nn.Conv2d(16, 4, 3, stride=2, padding=1), 4)
    model = torch.nn.Sequential(shift)
    x = torch.randn(8, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.no_grad():
        expected = model(x)
        hide_shifts(model)
        assert torch.equal(model(x), expected)
        assert torch.equal(x, before)
        sizes = [2, 2, 1, 1, 1, 1, 1]
        arguments = (x, model[0].net.weight.detach(), model[0].net.bias.detach(), 4, 8, False, sizes)
        tests = ("test_schema", "test_faketensor")  # shapes, strides, nothing written that is not restored
        torch.library.opcheck(torch.ops.tsm.shift_conv.default, arguments, test_utils=tests)


def test_a_batch_that_does_not_divide():
    model = torch.nn.Sequential(TemporalShift(torch.nn.Conv2d(8, 4, 1), 4))
    hide_shifts(model)
    with pytest.raises(InputError, match="does not divide"), torch.no_grad():
        model(torch.randn(6, 8, 2, 2))
