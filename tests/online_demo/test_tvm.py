"""TVM's compiler: targets, the command, and the check on a board."""

import sys
from types import SimpleNamespace

import pytest

from online_demo import compile as compile_command
from online_demo.backends import tvm_runtime
from online_demo.backends.choose import make_backend
from online_demo.backends.tvm_build import cached_library, make_target
from online_demo.backends.tvm_targets import TARGETS, find_target
from online_demo.model import FOLDER, load_model
from ops.common.errors import InputError
from tests.helpers import run_cli
from tests.online_demo.helpers import save_random


def test_targets():
    assert find_target("aarch64:cortex-a55").cpu == "cortex-a55"
    for spec in TARGETS.values():
        description = spec.describe_cpu("this-cpu")
        assert description["kind"] == "llvm"
        assert ("mtriple" in description) is not spec.is_host
    for name in ("toaster", "aarch64:", "aarch64:a b", "x86:skylake"):
        with pytest.raises(InputError, match="unknown target"):
            find_target(name)


def test_gpu_targets():
    pytest.importorskip("tvm")
    for name, arch, registers, cpu in (
        ("jetson-nano", "sm_53", 32768, "cortex-a57"),
        ("jetson-xavier", "sm_72", 65536, "carmel"),
        ("jetson-orin", "sm_87", 65536, "cortex-a78ae"),
    ):
        target = make_target(find_target(name))
        assert target.kind.name == "cuda"
        assert (target.attrs["arch"], target.attrs["registers_per_block"]) == (arch, registers)
        assert target.host.attrs["mcpu"] == cpu


def test_compile_refuses_before_anything_slow(tmp_path):
    for args, message in (
        (["--target", "raspberrypi4", "--tune", "10"], "run it on the board"),
        (["--output", "x.dll"], "ends with .onnx, .so"),
        (["--tune", "5", "--untuned"], "--untuned excludes --tune"),
    ):
        with pytest.raises(InputError, match=message):
            compile_command.main(["--weights", str(tmp_path / "none.pth"), *args])


def test_cuda_kernels_are_found_however_deep():
    def module(kind, *imports):
        return SimpleNamespace(kind=kind, imports=list(imports))

    assert tvm_runtime.has_cuda_kernels(module("relax.VMExecutable", module("llvm"), module("library", module("cuda"))))
    assert not tvm_runtime.has_cuda_kernels(module("relax.VMExecutable", module("llvm", module("const_loader"))))


def test_library_that_cannot_be_loaded(model, tmp_path):
    pytest.importorskip("tvm")
    (tmp_path / "x.so").write_bytes(b"no library")
    for name, message in (("x.so", r"x\.so: TVM cannot load it"), ("y.so", "no such library")):
        with pytest.raises(InputError, match=message):
            make_backend("tvm", model, library=tmp_path / name)


def test_check_on_a_board_needs_no_other_file(model, tmp_path, monkeypatch, capsys):
    """tvm_runtime.py alone, in a folder of its own, as it is copied to a board."""
    pytest.importorskip("tvm")
    library = tmp_path / "net.so"
    library.write_bytes(cached_library(model).read_bytes())
    compile_command.make_check(model, tmp_path / "net.npz")
    (tmp_path / "tvm_runtime.py").write_text((FOLDER / "backends" / "tvm_runtime.py").read_text())
    block = "import sys; sys.modules.update(dict.fromkeys(['ops', 'online_demo', 'cv2'])); sys.argv[1:] = ['net.so']; "
    done = run_cli(["-c", f"{block}sys.path.insert(0, '.'); import tvm_runtime; sys.exit(tvm_runtime.main())"],
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equal: 10 frames")
    other = load_model(save_random(tmp_path / "other.pth.tar", dropout=0.1, num_class=5), with_torch=True)
    other.stream.net.get_submodule("new_fc").bias.data += 1.0
    compile_command.make_check(other, tmp_path / "net.npz")
    monkeypatch.setattr(sys, "argv", ["tvm_runtime.py", str(library)])
    assert tvm_runtime.main() == 1
    assert capsys.readouterr().out.startswith("DIFFERENT")
