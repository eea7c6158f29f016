"""Networks of the demo: checkpoints, names of classes, and how frames are prepared."""

import numpy as np
import pytest
import torch
from PIL import Image

from online_demo.gestures import JESTER_CLASSES
from online_demo.model import load_model
from online_demo.network import NetworkInfo
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.checkpoint.streaming_layout import to_streaming_layout
from ops.common.errors import InputError
from ops.streaming import StreamingTSM
from ops.transforms import ClipNormalize
from pretrained import fetch as pretrained_fetch
from tests.online_demo.helpers import CLASS_NAMES, picture, save_random


def test_names_come_from_the_checkpoint_or_a_file(pictures, tmp_path):
    assert load_model(pictures, with_torch=True).class_names == tuple(CLASS_NAMES)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"name {index}\n" for index in range(len(CLASS_NAMES))))
    assert load_model(pictures, labels=names, with_torch=True).class_names[3] == "name 3"
    names.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"names\.txt has 2 names"):
        load_model(pictures, labels=names, with_torch=True)


def test_published_layout_is_jester(tmp_path):
    ours = save_random(tmp_path / "ours.pth.tar", num_class=27, input_size=224)
    published = tmp_path / "any_name.pth.tar"
    save_checkpoint(to_streaming_layout(load_checkpoint(ours).state_dict), published)
    model = load_model(published, with_torch=True)
    assert model.class_names == JESTER_CLASSES
    assert model.info.input_size == 224
    # 10 buffers of 3x56x56, 4x28x28 (2), 8x14x14 (3), 12x14x14 (2), 20x7x7 (2), as published.
    sizes = [(3, 56), (4, 28), (4, 28), (8, 14), (8, 14), (8, 14), (12, 14), (12, 14), (20, 7), (20, 7)]
    assert model.info.buffer_shapes == tuple((1, channels, side, side) for channels, side in sizes)


def test_jester_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TSM_PRETRAINED", str(tmp_path / "files"))
    fetched = []

    def fake_fetch(row, folder):
        fetched.append((row.file, folder))
        return save_random(folder / row.file, num_class=27)

    monkeypatch.setattr(pretrained_fetch, "fetch", fake_fetch)
    model = load_model(jester=True, with_torch=True)
    assert fetched == [("mobilenetv2_jester_online.pth.tar", tmp_path / "files")]
    assert len(model.class_names) == 27
    with pytest.raises(InputError, match="exclude each other"):
        load_model("x.pth", jester=True)

    def no_network(row, folder):
        raise InputError("cannot be reached")

    monkeypatch.setattr(pretrained_fetch, "fetch", no_network)
    (tmp_path / "files" / "mobilenetv2_jester_online.pth.tar").unlink()
    with pytest.raises(InputError, match=r"reached; run python -m pretrained\.fetch jester_.*or put the file into "):
        load_model(jester=True, with_torch=True)


def test_offline_network_is_refused(tmp_path):
    path = save_random(tmp_path / "offline.pth.tar", online=False)
    with pytest.raises(InputError, match="train one with --shift --online"):
        load_model(path, with_torch=True)


def test_preprocessing_is_that_of_evaluation(model):
    """RGB (published code fed BGR), short side to 73, centre crop of 64."""
    image = picture(1, (160, 120))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    resized = Image.fromarray(image).resize((97, 73), Image.Resampling.BILINEAR)
    left, top = round((97 - 64) / 2), round((73 - 64) / 2)
    crop = np.asarray(resized, np.float64)[top : top + 64, left : left + 64]
    wanted = ((crop / 255 - mean) / std).transpose(2, 0, 1)[None]
    given = model.info.preprocess(image)
    assert given.shape == (1, 3, 64, 64)
    assert given.dtype == np.float32
    assert np.abs(given - wanted).max() < 1.01 / 255 / 0.224  # a level, where a resize rounds the other way


@pytest.mark.parametrize("size", [(160, 120), (48, 64), (640, 360), (73, 73), (1000, 90), (64, 64)])
def test_preprocessing_without_torch_is_that_with_it(model, size):
    """Within a level of 255, where a resize rounds the other way."""
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    wanted = StreamingTSM.from_checkpoint(model.path).preprocess(image).numpy()
    std = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    assert np.abs((model.info.preprocess(image) - wanted) * std * 255).max() < 1.01


def test_networks_that_take_bgr_in_0_to_255():
    info = NetworkInfo(("a",), 2, 2, {"mean": [104, 117, 128], "std": [1.0], "div255": False, "bgr": True}, ())
    image = np.uint8([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
    wanted = ClipNormalize(**info.normalization)(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert info.preprocess(image) == pytest.approx(wanted.numpy())
    assert info.preprocess(image)[0, 0].tolist() == [[3 - 104, 6 - 104], [9 - 104, 12 - 104]]
