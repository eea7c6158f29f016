"""The examples of docs/extend.md; any backbone: found by structure, named modules, another classifier."""

import re

import pytest
import torch
import torchvision
from torch import nn

from ops.common.errors import InputError
from ops.dataset_config import DATASETS
from ops.models import TSN
from ops.network.runtime import fold_batchnorm
from ops.temporal_shift import TemporalShift, make_temporal_shift
from ops.training import step
from tests.helpers import PROJECT, make_frame_folder, make_kinetics_tree, make_list

EXAMPLES = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "extend.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("index", "package"), [(0, "torchvision"), (1, "timm")])
def test_example_trains_saves_loads_and_streams(index, package, tmp_path, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(EXAMPLES[index], names)
    model, loaded = names["model"], names["loaded"]
    weights = model.state_dict()
    assert [key for key, value in loaded.state_dict().items() if not torch.equal(value, weights[key])] == []
    assert any(isinstance(module, TemporalShift) for module in model.base_model.modules())
    wanted = loaded.frame_scores(names["clips"])[:, -1]  # of the last frame, which has seen all others
    torch.testing.assert_close(names["scores"], wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert names["loss"].isfinite()
    if package == "torchvision":  # the next example goes on with this network
        exec(EXAMPLES[2], names)
        assert names["features"].shape == (2, 4, 1280) and model(names["clips"]).shape == (2, 20)


def test_example_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ops.dataset_config.DATASETS", dict(DATASETS))
    monkeypatch.delenv("TSM_DATA_ROOT", raising=False)
    make_frame_folder(tmp_path / "data" / "surf" / "images" / "wave_07", 150, size=(96, 72))
    make_list(tmp_path / "data" / "surf" / "labels" / "train_videofolder.txt", [("wave_07", 150, 1)])
    exec(EXAMPLES[3], names := {})
    assert (names["clip"].shape, names["clip"].dtype, names["label"]) == ((8, 3, 64, 64), torch.uint8, 1)
    assert names["paths"].fps == 30


def test_example_of_a_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step, "summed_loss", step.summed_loss)  # put back afterwards
    exec(EXAMPLES[4], names := {"__name__": "smooth"})
    scores, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), torch.tensor([0, 2])
    target = 0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3
    loss, same = names["smoothed_loss"](scores, labels)
    torch.testing.assert_close(loss, -(target * scores.log_softmax(dim=1)).sum())
    assert same is scores and step.summed_loss is names["smoothed_loss"]

    make_kinetics_tree(tmp_path / "data")
    options = "--arch resnet18 --pretrain none --npb --input_size 32 --num_segments 2 --num_class 2 -b 4 -j 0"
    seen = []
    monkeypatch.setattr(step, "summed_loss", lambda *args: seen.append(1) or names["smoothed_loss"](*args))
    assert names["main"].main(["kinetics", "RGB", "--root_dataset", "data", "--epochs", "1", *options.split()]) is None
    assert seen == [1]  # four clips are one step


class Small(nn.Module):
    """A network of no known family: two convolutions and a head that is two names deep."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean(dim=(2, 3)))


def small_tsn(**options):
    settings = {"base_model": Small(), "dropout": 0.5, "partial_bn": False, "print_spec": False, **options}
    model = TSN(5, 4, "RGB", **settings).eval()
    nn.init.normal_(model.classifier.weight)
    return model


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("mobilenet_v2", "features.3.conv.0.0", 10),
        ("efficientnet_b0", "features.2.1.block.0.0", 9),
        ("mobilenet_v3_small", "features.3.block.0.0", 6),
        ("resnext101_64x4d", "layer1.0.conv1", 18),  # every second of 3 + 4 + 23 + 3 blocks
    ],
)
def test_families_are_found_by_structure(name, first, count):
    with torch.device("meta"):
        net = torchvision.models.get_model(name)
        changed = make_temporal_shift(net, 8)
    assert (changed[0], len(changed)) == (first, count)
    assert [key for key, module in net.named_modules() if isinstance(module, TemporalShift)] == changed
    with pytest.raises(InputError, match="already"):
        make_temporal_shift(net, 8)


def test_torchvision_mobilenet_shifts_where_ours_does():
    torch.manual_seed(0)
    ours = TSN(5, 4, "RGB", "mobilenetv2", is_shift=True, pretrain="none", partial_bn=False, print_spec=False)
    net = torchvision.models.mobilenet_v2()
    theirs = TSN(5, 4, "RGB", net, is_shift=True, partial_bn=False, print_spec=False)
    values = list(ours.state_dict().values())  # the same layers in the same order
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    clip = torch.randn(1, 4, 3, 64, 64)
    assert torch.equal(ours.eval()(clip), theirs.eval()(clip))


def test_named_modules():
    model = small_tsn(base_model=(net := Small()))
    clip = torch.randn(2, 4, 3, 16, 16)
    plain = model(clip)
    assert make_temporal_shift(net, 4, n_div=4, modules=["body.1"]) == ["body.1"]
    x = net.body[0](net.stem(clip.flatten(0, 1))).view(2, 4, 8, 16, 16)
    shifted = torch.zeros_like(x)
    shifted[:, :-1, :2], shifted[:, 1:, 2:4], shifted[:, :, 4:] = x[:, 1:, :2], x[:, :-1, 2:4], x[:, :, 4:]
    features = net.body[2](net.body[1].net(shifted.flatten(0, 1))).mean(dim=(2, 3))
    wanted = model.new_fc(net.head[:2](features)).view(2, 4, 5).mean(dim=1)
    torch.testing.assert_close(model(clip), wanted)
    assert not torch.allclose(plain, wanted)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["body.7"], r"Small has no module 'body\.7'"),
        (["head.0"], r"head\.0 \(Linear\) has no 2D convolution"),
        (["stem", "stem"], "names one twice"),
    ],
)
def test_names_that_cannot_be_shifted_leave_the_network_as_it_was(modules, message):
    net = Small()
    with pytest.raises(InputError, match=message):
        make_temporal_shift(net, 4, modules=["body.1", *modules])
    assert not any(isinstance(module, TemporalShift) for module in net.modules())


def test_what_does_not_fit_together_is_refused():
    make_temporal_shift(net := Small(), 8, modules=["body.1"])
    with pytest.raises(InputError, match="shifts 8 segments, and num_segments is 4"):
        small_tsn(base_model=net)
    with pytest.raises(InputError, match=r"no blocks to shift found in Small.*modules="):
        small_tsn(is_shift=True)
    with pytest.raises(InputError, match="Conv2d has no linear layer"):
        small_tsn(base_model=nn.Conv2d(3, 3, 1))


def test_statistics_that_timm_records():
    net = Small()
    net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    assert small_tsn(base_model=net).normalization["mean"] == [0.5, 0.5, 0.5]
    assert small_tsn().normalization["std"] == [0.229, 0.224, 0.225]


def test_a_batch_norm_that_does_more_is_not_folded():
    class NormAct(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    net = nn.Sequential(nn.Conv2d(3, 4, 1), NormAct(4)).eval()
    x = torch.randn(1, 3, 4, 4)
    wanted = net(x)
    assert fold_batchnorm(net) == 0
    assert torch.equal(net(x), wanted)


# --- features and classifier ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_features_and_another_classifier(dropout):
    model, clip = small_tsn(dropout=dropout), torch.randn(2, 4, 3, 16, 16)
    net = model.base_model
    wanted = net.head[:2](net.body(net.stem(clip.flatten(0, 1))).mean(dim=(2, 3))).view(2, 4, 8)
    torch.testing.assert_close(model.features(clip), wanted)
    torch.testing.assert_close(model(clip), model.classifier(wanted).mean(dim=1))
    assert torch.equal(model.train().features(clip)[0], model.features(clip)[0])  # before dropout
    model.eval()
    model.new_fc = nn.Identity()
    torch.testing.assert_close(model(clip), model.features(clip).mean(dim=1))
    model.new_fc = nn.Linear(8, 7)
    torch.testing.assert_close(model(clip), model.new_fc(model.features(clip)).mean(dim=1))


def test_features_after_a_temporal_pool():
    model = TSN(5, 4, "RGB", "resnet18", pretrain="none", temporal_pool=True, partial_bn=False, print_spec=False).eval()
    clip = torch.randn(1, 12, 32, 32)
    features = model.features(clip)
    assert features.shape == (1, 2, 512)
    torch.testing.assert_close(model.new_fc(features), model.frame_scores(clip))
