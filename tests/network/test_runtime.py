"""Folded nets give the same scores."""

import pytest
import torch
from torch import nn

from ops.models import TSN
from ops.network.runtime import fold_batchnorm


def randomize_batchnorm(model: nn.Module) -> int:
    """Statistics and affines as after training, not the identity that a fresh net has; returns how many there are."""
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.0, generator=generator)
        nn.init.normal_(norm.bias, 0, 0.1, generator=generator)
    return len(norms)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet18", {}),
        ("resnet50", {"non_local": True, "temporal_pool": True}),
        ("mobilenetv2", {"online": True}),
        ("BNInception", {"shift_place": "block"}),
        ("resnet18", {"is_shift": False, "dropout": 0.0}),
    ],
)
def test_folding_keeps_the_scores_and_leaves_no_batchnorm(arch, options):
    torch.manual_seed(0)
    settings = {"is_shift": True, "dropout": 0.5, "pretrain": "none", "print_spec": False, **options}
    model = TSN(5, 4, "RGB", base_model=arch, input_size=64, **settings)
    num_norms = randomize_batchnorm(model)
    model.eval()
    clip = torch.randn(2, 12, 64, 64)
    with torch.no_grad():
        expected = model(clip)
        assert fold_batchnorm(model) == num_norms
        folded = model(clip)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    assert torch.allclose(folded, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert expected.std() > 0


def test_a_training_model_is_refused():
    with pytest.raises(ValueError, match=r"model\.eval"):
        fold_batchnorm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))


def test_only_known_pairs_are_folded():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    assert fold_batchnorm(model) == 0
