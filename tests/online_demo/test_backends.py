"""Backends of the live demo against torch, their cache, quantisation, and TVM's compiler."""

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from online_demo import compare_backends
from online_demo import compile as compile_command
from online_demo.backends import base as backends
from online_demo.backends import cache
from online_demo.backends.base import BACKENDS, TorchBackend, check_backend, make_backend
from online_demo.backends.cache import CACHE_VARIABLE, cache_folder, cached_file
from online_demo.backends.tvm_runtime import has_cuda_kernels
from online_demo.backends.tvm_targets import TARGETS, cpu_description, find_target
from online_demo.model import FOLDER, load_model
from ops.common.errors import InputError
from ops.streaming import StreamingTSM
from tests.helpers import make_video, run_cli
from tests.online_demo.helpers import picture, save_random


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """One cache for this module: exporting and compiling take seconds."""
    return tmp_path_factory.mktemp("cache") / "compiled"


@pytest.fixture(autouse=True)
def use_cache(cache_dir, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache_dir))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_random(tmp_path_factory.mktemp("weights") / "random.pth.tar"))


def compare_with_stream(backend, model, num_frames, seed=1):
    """Relative differences from StreamingTSM over a stream with the state fed back; asserts the same best class."""
    rng = np.random.default_rng(seed)
    exact, state, differences = TorchBackend(model), backend.init_state(), []
    exact_state = exact.init_state()
    for t in range(num_frames):
        frame = rng.standard_normal(model.frame_shape, dtype=np.float32)
        wanted, exact_state = exact.step(frame, exact_state)
        scores, state = backend.step(frame, state)
        assert scores.shape == wanted.shape == (model.stream.num_class,)
        assert scores.dtype == np.float32
        assert scores.argmax() == wanted.argmax(), f"frame {t}"
        differences.append(np.abs(scores - wanted).max() / np.abs(wanted).max())
    return np.array(differences)


# --- agreement --------------------------------------------------------------------------------------------------------


def test_torch_backend_is_the_streaming_network(model):
    stream, backend = StreamingTSM.from_checkpoint(model.path), TorchBackend(model)
    rng = np.random.default_rng(0)
    state, own_state = stream.init_state(1, 64, 64), backend.init_state()
    for _ in range(5):
        frame = rng.standard_normal(model.frame_shape, dtype=np.float32)
        wanted, state = stream.step(torch.from_numpy(frame), state)
        scores, own_state = backend.step(frame, own_state)
        assert np.abs(scores - wanted[0].numpy()).max() <= 1e-4 * wanted.abs().max()


def test_onnxruntime_agrees_with_torch(model):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    backend = make_backend("onnxruntime", model, threads=1)
    assert compare_with_stream(backend, model, 60).max() < 1e-4


def test_onnxruntime_runs_other_networks(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load_model(save_random(tmp_path / "resnet.pth.tar", arch="resnet18", num_class=3))
    assert compare_with_stream(make_backend("onnxruntime", model, threads=1), model, 20).max() < 1e-4


def test_tvm_agrees_with_torch(model):
    pytest.importorskip("tvm")
    backend = make_backend("tvm", model, threads=1)
    assert compare_with_stream(backend, model, 60).max() < 1e-3


def test_agreement_counts_and_measures(model):
    class Skewed(TorchBackend):
        """Adds 0.1 of the largest score to the worst class; from the third frame on, twice the largest."""

        def init_state(self):
            return [0, super().init_state()]

        def step(self, frame, state):
            scores, inner = super().step(frame, state[1])
            scores = scores.copy()
            scores[scores.argmin()] += (0.1 if state[0] < 2 else 2.0) * np.abs(scores).max()
            return scores, [state[0] + 1, inner]

    frames = np.random.default_rng(5).standard_normal((4, *model.frame_shape), dtype=np.float32)
    found = backends.compare(TorchBackend(model), Skewed(model), [frames, frames[:2]])
    assert (found.num_frames, found.num_same) == (6, 4)
    assert found.differences == pytest.approx([0.1, 0.1, 2, 2, 0.1, 0.1], rel=1e-5)
    assert found.worst == max(found.differences)


def test_scores_that_turn_nan_are_a_difference(model):
    class Decaying(TorchBackend):
        name = "decaying"

        def init_state(self):
            return [0, super().init_state()]

        def step(self, frame, state):
            scores, inner = super().step(frame, state[1])
            return (scores * np.nan if state[0] == 2 else scores), [state[0] + 1, inner]

    with pytest.raises(InputError, match=r"decaying computes other scores than torch .* differ by nan"):
        check_backend(Decaying(model), model)


def test_command_compares_all_that_is_installed(model, tmp_path, capsys):
    film = make_video(tmp_path / "film.mp4", np.stack([np.roll(picture(1), 7 * t, axis=1) for t in range(20)]))
    options = ["--weights", str(model.path), "--source", str(film), "--frames", "25", "--threads", "1"]
    assert compare_backends.main(options) == 0  # 10 frames are used, so the film begins again twice
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[0] for line in lines] == ["onnxruntime", "tvm"]
    for line in lines:
        assert "is not installed" in line or "same best class on 25 of 25 frames" in line
    with pytest.raises(InputError, match="give a video file"):
        compare_backends.main(["--weights", str(model.path), "--source", "rtsp://localhost/x"])


@pytest.mark.parametrize("name", BACKENDS)
def test_states_are_apart_and_threads_do_not_mix(model, name):
    if name != "torch":
        pytest.importorskip(name)
    backend = make_backend(name, model, threads=1)
    rng = np.random.default_rng(3)
    streams = rng.standard_normal((3, 6, *model.frame_shape), dtype=np.float32)

    def play(frames):
        state, scores = backend.init_state(), []
        for frame in frames:
            frame_scores, state = backend.step(frame, state)
            scores.append(frame_scores)
        return np.stack(scores)

    alone = [play(frames) for frames in streams]
    together = [None] * 3

    def work(index):
        together[index] = play(streams[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


class WrongBackend(TorchBackend):
    """Forgets its state: the first frame is right, the others are not."""

    name = "wrong"

    def step(self, frame, state):
        return super().step(frame, state)[0], state


def test_self_check_notices_a_lost_state(model):
    assert check_backend(TorchBackend(model), model) == 0
    with pytest.raises(InputError, match="wrong computes other scores than torch"):
        check_backend(WrongBackend(model), model)


def test_self_check_notices_other_weights(model, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    other = load_model(save_random(tmp_path / "other.pth.tar", num_class=7))
    backend = backends.OnnxRuntimeBackend(model, path=backends.exported_onnx(other))
    with pytest.raises(InputError, match="onnxruntime gives 7 scores"):
        check_backend(backend, model)


def test_unknown_backend(model):
    with pytest.raises(InputError, match="choose one of onnxruntime, torch, tvm"):
        make_backend("tensorrt", model)


# --- cache ------------------------------------------------------------------------------------------------------------


def test_cache_builds_once_for_each_dependency(tmp_path):
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


def test_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "new"))

    def build(path):
        path.write_text("half")
        raise InputError("no compiler")

    with pytest.raises(InputError, match="no compiler"):
        cached_file("net", ".so", {}, build)
    assert os.listdir(tmp_path / "new") == []


def test_cache_is_for_its_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a" / "b"))
    assert cache_folder().stat().st_mode & 0o077 == 0
    os.chmod(tmp_path / "a" / "b", 0o777)
    with pytest.raises(InputError, match="others may write there"):
        cache_folder()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "x"))
    with pytest.raises(InputError, match=f"set {CACHE_VARIABLE}"):
        cache_folder()


def test_cache_is_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tsm_online_demo"


def test_damaged_cache_is_made_anew(model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = backends.exported_onnx(model)
    path.write_bytes(path.read_bytes()[:1000])
    make_backend("onnxruntime", model, threads=1)
    assert path.stat().st_size > 1_000_000


def test_exported_file_depends_on_weights_and_versions(model, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(backends, "cached_file", lambda stem, suffix, depends, build: seen.append(depends))
    backends.exported_onnx(model)
    backends.exported_onnx(load_model(save_random(tmp_path / "b.pth.tar", num_class=9)))
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "other")
    backends.exported_onnx(model)
    assert len({str(depends) for depends in seen}) == 3


# --- int8 -------------------------------------------------------------------------------------------------------------


def test_int8_tells_its_agreement(model, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    clip = make_video(tmp_path / "clip.mp4", np.stack([np.roll(picture(1), 5 * t, axis=1) for t in range(36)]))
    said = []
    backend = make_backend("onnxruntime", model, threads=1, int8_clips=[str(clip)], report=said.append)
    assert backend.name == "onnxruntime int8"
    assert len(said) == 1
    assert "of 6 held-out frames" in said[0]  # every second of 36, the last third
    files = sorted(os.listdir(cache_folder()))
    small = next(name for name in files if name.endswith(".int8.onnx"))
    sizes = {name: (cache_folder() / name).stat().st_size for name in files}
    assert sizes[small] < 0.5 * sizes[backends.exported_onnx(model).name]
    scores, state = backend.step(model.preprocess(picture(1)), backend.init_state())
    assert scores.shape == (5,)
    assert [buffer.shape for buffer in state] == model.buffer_shapes


def test_int8_needs_enough_frames(model, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    clip = make_video(tmp_path / "short.mp4", np.stack([picture(1)] * 4))
    with pytest.raises(InputError, match=r"short\.mp4: 2 frames are too few"):
        make_backend("onnxruntime", model, int8_clips=[str(clip)])


# --- TVM's compiler ---------------------------------------------------------------------------------------------------


def test_targets():
    assert find_target("jetson-nano").cuda_arch == "sm_53"
    assert find_target("jetson-xavier").cuda_arch == "sm_72"
    assert find_target("jetson-orin").cuda_arch == "sm_87"
    assert find_target("aarch64:cortex-a55").cpu == "cortex-a55"
    for spec in TARGETS.values():
        description = cpu_description(spec, "this-cpu")
        assert description["kind"] == "llvm"
        assert ("mtriple" in description) is not spec.is_host
    for name in ("toaster", "aarch64:", "aarch64:a b", "x86:skylake"):
        with pytest.raises(InputError, match="unknown target"):
            find_target(name)


def test_compile_refuses_before_anything_slow(tmp_path):
    for args, message in (
        (["--target", "raspberrypi4", "--tune", "10"], "run it on the board"),
        (["--output", "x.dll"], "ends with .so"),
        (["--tune", "5", "--untuned"], "--untuned excludes --tune"),
    ):
        with pytest.raises(InputError, match=message):
            compile_command.main(["--weights", str(tmp_path / "none.pth"), *args])


def test_cuda_kernels_are_found_however_deep():
    def module(kind, *imports):
        return SimpleNamespace(kind=kind, imports=list(imports))

    assert has_cuda_kernels(module("relax.VMExecutable", module("llvm"), module("library", module("cuda"))))
    assert not has_cuda_kernels(module("relax.VMExecutable", module("llvm", module("const_loader"))))


def test_library_of_other_weights_is_refused(model, tmp_path):
    pytest.importorskip("tvm")
    (tmp_path / "x.so").write_bytes(b"no library")
    with pytest.raises(InputError, match=r"x\.so: TVM cannot load it"):
        make_backend("tvm", model, library=tmp_path / "x.so")
    with pytest.raises(InputError, match="no such library"):
        make_backend("tvm", model, library=tmp_path / "y.so")


def test_check_on_a_board_needs_no_other_file(model, tmp_path):
    """tvm_runtime.py alone, in a folder of its own, as it is copied to a board."""
    pytest.importorskip("tvm")
    library = tmp_path / "net.so"
    library.write_bytes(tvm_library(model).read_bytes())
    compile_command.make_check(model, tmp_path / "net.npz")
    script = tmp_path / "tvm_runtime.py"
    script.write_text((FOLDER / "backends" / "tvm_runtime.py").read_text())
    block = "import sys; sys.modules.update(dict.fromkeys(['ops', 'online_demo', 'cv2'])); sys.argv[1:] = ['net.so']; "
    done = run_cli(["-c", f"{block}sys.path.insert(0, '.'); import tvm_runtime; sys.exit(tvm_runtime.main())"],
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equal: 10 frames")
    other = load_model(save_random(tmp_path / "other.pth.tar", dropout=0.1, num_class=5))
    other.stream.net.get_submodule("new_fc").bias.data += 1.0
    compile_command.make_check(other, tmp_path / "net.npz")
    done = run_cli([script, library], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("DIFFERENT")


def tvm_library(model):
    from online_demo.backends.tvm_build import cached_library

    return cached_library(model)
