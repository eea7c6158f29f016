"""Backends of the live demo against torch, their cache, and quantisation."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from online_demo import model as demo_model
from online_demo.backends import cache
from online_demo.backends.base import compare
from online_demo.backends.cache import CACHE_VARIABLE, cache_folder, cached_file
from online_demo.backends.choose import BACKENDS, check_backend, make_backend
from online_demo.backends.torch_backend import TorchBackend
from online_demo.model import exported, load_model
from ops.common.errors import InputError
from ops.streaming import StreamingTSM
from tests.helpers import make_video
from tests.online_demo.helpers import picture, save_random


@pytest.fixture
def needs_onnx():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")


def noise(model, *shape, seed=1):
    return np.random.default_rng(seed).standard_normal((*shape, *model.info.frame_shape), dtype=np.float32)


# --- agreement --------------------------------------------------------------------------------------------------------


def test_torch_backend_is_the_streaming_network(model):
    stream, backend = StreamingTSM.from_checkpoint(model.path), TorchBackend(model)
    state, own_state = stream.init_state(1, 64, 64), backend.init_state()
    for frame in noise(model, 5):
        wanted, state = stream.step(torch.from_numpy(frame), state)
        scores, own_state = backend.step(frame, own_state)
        assert np.abs(scores - wanted[0].numpy()).max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(("name", "limit"), [("onnxruntime", 1e-4), ("tvm", 1e-3)])
def test_other_backends_agree_with_torch(model, name, limit):
    pytest.importorskip(name)
    found = compare(TorchBackend(model), make_backend(name, model, threads=1), [noise(model, 20)])
    assert found.num_same == found.num_frames == 20
    assert found.worst < limit


def test_onnxruntime_runs_other_networks(needs_onnx, tmp_path):
    model = load_model(save_random(tmp_path / "resnet.pth.tar", arch="resnet18", num_class=3), with_torch=True)
    found = compare(TorchBackend(model), make_backend("onnxruntime", model, threads=1), [noise(model, 20)])
    assert found.num_same == 20
    assert found.worst < 1e-4


class Changed(TorchBackend):
    """Scores that `change(scores, number of the frame)` makes of torch's."""

    name = "changed"

    def __init__(self, model, change):
        super().__init__(model)
        self.change = change

    def init_state(self):
        return [0, super().init_state()]

    def step(self, frame, state):
        scores, inner = super().step(frame, state[1])
        return self.change(scores.copy(), state[0]), [state[0] + 1, inner]


def test_agreement_counts_and_measures(model):
    def lift_the_worst(scores, number):
        scores[scores.argmin()] += (0.1 if number < 2 else 2.0) * np.abs(scores).max()
        return scores

    frames = noise(model, 4, seed=5)
    found = compare(TorchBackend(model), Changed(model, lift_the_worst), [frames, frames[:2]])
    assert (found.num_frames, found.num_same) == (6, 4)
    assert found.differences == pytest.approx([0.1, 0.1, 2, 2, 0.1, 0.1], rel=1e-5)
    assert found.worst == max(found.differences)


def test_check_notices_nan_and_a_lost_state(model):
    assert check_backend(TorchBackend(model), model) == 0
    decaying = Changed(model, lambda scores, number: scores * np.nan if number == 2 else scores)
    with pytest.raises(InputError, match=r"changed computes other scores than torch .* differ by nan"):
        check_backend(decaying, model)
    forgetful = TorchBackend(model)
    forgetful.step = lambda frame, state: (TorchBackend.step(forgetful, frame, state)[0], state)
    with pytest.raises(InputError, match="computes other scores than torch"):
        check_backend(forgetful, model)


def test_check_notices_another_number_of_classes(model):
    with pytest.raises(InputError, match="changed gives 3 scores"):
        check_backend(Changed(model, lambda scores, number: scores[:3]), model)


@pytest.mark.parametrize("name", BACKENDS)
def test_states_are_apart_and_threads_do_not_mix(model, name):
    pytest.importorskip(name)
    backend = make_backend(name, model, threads=1)

    def play(frames):
        state, scores = backend.init_state(), []
        for frame in frames:
            frame_scores, state = backend.step(frame, state)
            scores.append(frame_scores)
        return np.stack(scores)

    streams = noise(model, 3, 6, seed=3)
    alone = [play(frames) for frames in streams]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(play, streams))
    assert np.array_equal(alone, together)


def test_unknown_backend(model):
    with pytest.raises(InputError, match="choose one of onnxruntime, torch, tvm"):
        make_backend("tensorrt", model)


# --- cache ------------------------------------------------------------------------------------------------------------


def test_cache_builds_once_for_each_dependency():
    built = []

    def build(path):
        built.append(path)
        path.write_text(str(len(built)))

    first = cached_file("net", ".so", {"weights": "a"}, build)
    assert cached_file("net", ".so", {"weights": "a"}, build) == first
    other = cached_file("net", ".so", {"weights": "b"}, build)
    assert other != first
    assert (first.read_text(), other.read_text(), len(built)) == ("1", "2", 2)
    assert first.name.startswith("net-")
    assert first.suffix == ".so"


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert cache_folder().stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "x"))
    with pytest.raises(InputError, match=f"set {CACHE_VARIABLE}"):
        cache_folder()
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tsm_online_demo"


def test_exported_file_depends_on_weights_and_versions(model, monkeypatch):
    seen = []
    monkeypatch.setattr(demo_model, "cached_file", lambda stem, suffix, depends, build: seen.append(depends))
    exported(model.path, model.digest)
    exported(model.path, "another")
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "other")
    exported(model.path, model.digest)
    assert len({str(depends) for depends in seen}) == 3


# --- int8 -------------------------------------------------------------------------------------------------------------


def test_int8_reports_its_agreement(needs_onnx, model, tmp_path):
    clip = make_video(tmp_path / "clip.mp4", np.stack([np.roll(picture(1), 5 * t, axis=1) for t in range(36)]))
    reported = []
    backend = make_backend("onnxruntime", model, threads=1, int8_clips=[str(clip)], report=reported.append)
    assert backend.name == "onnxruntime int8"
    assert len(reported) == 1
    assert "of 8 held-out frames" in reported[0]  # 22 of 36 frames at 25 a second for 15, the last third
    (small,) = cache_folder().glob("*.int8.onnx")
    assert small.stat().st_size < 0.5 * model.onnx_path.stat().st_size
    scores, state = backend.step(model.info.preprocess(picture(1)), backend.init_state())
    assert scores.shape == (5,)
    assert tuple(buffer.shape for buffer in state) == model.info.buffer_shapes


def test_int8_names_its_own_option(needs_onnx, model):
    with pytest.raises(InputError, match=r"^--int8 missing.mp4: no such video file"):
        make_backend("onnxruntime", model, int8_clips=["missing.mp4"])


def test_int8_needs_enough_frames(needs_onnx, model, tmp_path):
    clip = make_video(tmp_path / "short.mp4", np.stack([picture(1)] * 4))
    with pytest.raises(InputError, match=r"short\.mp4: 3 frames are too few"):
        make_backend("onnxruntime", model, int8_clips=[str(clip)])
