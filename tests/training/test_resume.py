"""A run that was stopped, killed or extended ends like one that never was: weights, logs, curves, bit for bit.

TSM_KILLS=30 kills the real command that many times instead of twice; `python -m tests.kill_training` does it at more
leisure, on the moving digits, and prints what was hit.
"""

from __future__ import annotations

import os
import random
import resource
import shlex
import signal
from pathlib import Path

import pytest
import torch

import main
import ops.training.run
from ops.checkpoint.file import load_checkpoint
from ops.common.errors import InputError
from ops.training.log import RunLog, read_epochs
from tests.helpers import make_kinetics_tree
from tests.kill_training import AIMS, Training, differences, same, trial

NUM_KILLS = int(os.environ.get("TSM_KILLS", "2"))
EPOCHS = 3
OPTIONS = (
    "--arch mobilenetv2 --pretrain none --npb --input_size 32 --num_segments 2 --num_class 2 -b 2 --lr 0.001 --shift "
    "--dropout 0.5 --clip-gradient 5 --lr_steps 1 2 --eval-freq 1 -p 1 --save_every 1 --store_name run --seed 3"
)


class Killed(BaseException):
    """What a test throws in place of SIGKILL."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_kinetics_tree(tmp_path_factory.mktemp("data"), num_videos=6, num_frames=6, size=(48, 40))


def arguments(root: Path, folder: Path, more: str = "", *, epochs: int = EPOCHS) -> list[str]:
    folders = f"--root_log {folder / 'log'} --root_model {folder / 'model'} --epochs {epochs} -j 0"
    return ["kinetics", "RGB", "--root_dataset", str(root), *shlex.split(f"{OPTIONS} {folders} {more}")]


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "model" / "run" / "ckpt.pth.tar", weights_only=True)


def assert_same_run(folder: Path, whole: Path) -> None:
    """Weights, momentum, random states, log, rows and curves, the best checkpoint; all but times."""
    assert differences(folder, whole) == []


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    main.main(arguments(root, folder))
    return folder


def test_the_same_command_twice_gives_the_same_run(root, whole, tmp_path):
    main.main(arguments(root, tmp_path, "-j 2"))  # workers change nothing
    assert_same_run(tmp_path, whole)


def test_continuing_after_an_epoch(root, whole, tmp_path):
    main.main(arguments(root, tmp_path, epochs=1))
    assert checkpoint(tmp_path)["epoch"] == 1
    main.main(arguments(root, tmp_path, f"--resume {tmp_path}/model/run/ckpt.pth.tar", epochs=2))
    main.main(arguments(root, tmp_path, "--resume auto"))
    assert_same_run(tmp_path, whole)


def test_resume_auto_begins_where_nothing_is(root, whole, tmp_path):
    main.main(arguments(root, tmp_path, "--resume auto"))
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("place", ["before a checkpoint", "after a checkpoint", "at a line of the log"])
def test_killed_over_and_over(root, whole, tmp_path, monkeypatch, place):
    """Every attempt dies a little later than the one before; each of the run's moments is hit at least once."""
    save, line = ops.training.run.save_checkpoint, RunLog.line
    left = 0

    def count_down():
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed

    def dying_save(state, path):
        if place == "before a checkpoint":
            count_down()
        save(state, path)
        if place == "after a checkpoint":
            count_down()

    def dying_line(self, text):
        line(self, text)
        if place == "at a line of the log":
            count_down()

    monkeypatch.setattr(ops.training.run, "save_checkpoint", dying_save)
    monkeypatch.setattr(RunLog, "line", dying_line)
    for attempt in range(1, 99):
        left = attempt
        try:
            main.main(arguments(root, tmp_path, "--resume auto"))
            break
        except Killed:
            continue
    assert attempt > 3
    assert_same_run(tmp_path, whole)


# --- the real command -------------------------------------------------------------------------------------------------


def start(root: Path, folder: Path, more: str = "") -> Training:
    return Training(arguments(root, folder, f"-j 1 --resume auto {more}"), folder)


@pytest.fixture(scope="module")
def whole_one_thread(root, tmp_path_factory):
    """The undisturbed run as the real command computes it: one thread."""
    folder = tmp_path_factory.mktemp("one_thread")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    main.main(arguments(root, folder))
    torch.set_num_threads(before)
    return folder


@pytest.mark.parametrize("number", range((NUM_KILLS + 1) // 2))
def test_sigkill_twice_at_random_moments(root, whole_one_thread, tmp_path, number):
    rng = random.Random(number)
    for folder in (tmp_path / f"attempt{attempt}" for attempt in range(5)):
        command = arguments(root, folder, "-j 1 --resume auto")
        kills, wrong = trial(command, folder, whole_one_thread, rng.sample(AIMS, 2), rng=rng, whole_s=10)
        assert wrong == [], kills
        if kills:  # else the training had ended before its moment came
            return
    pytest.fail("no training lived long enough to be killed")


def test_sigterm_to_the_whole_group_saves_after_the_step(root, whole_one_thread, tmp_path):
    training = start(root, tmp_path, "--save_every 1000")
    training.wait_for(lambda: any(line.startswith("Epoch:") for line in training.lines()))
    os.killpg(training.process.pid, signal.SIGTERM)  # as torchrun or Slurm does: loader workers get it, too
    assert training.end() == 143
    err = training.errors()
    assert "Stopped by SIGTERM in epoch " in err and "--resume auto continues from" in err
    assert "Traceback" not in err
    main_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    main.main(arguments(root, tmp_path, "--resume auto"))
    torch.set_num_threads(main_threads)
    assert_same_run(tmp_path, whole_one_thread)


@pytest.mark.parametrize("line", ["Epoch: [0][0/3]", "Test: [1/3]", "Best Prec@1", "Epoch: [2][2/3]"])
def test_ctrl_c_at_different_moments(root, whole, tmp_path, monkeypatch, line, caplog):
    write = RunLog.line

    def interrupt(self, text):
        write(self, text)
        if text.startswith(line) and not caplog.text.count("Stopped by"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunLog, "line", interrupt)
    assert main.main(arguments(root, tmp_path, "--save_every 1000")) == 130
    assert "Stopped by SIGINT in epoch " in caplog.text
    monkeypatch.setattr(RunLog, "line", write)
    assert main.main(arguments(root, tmp_path, "--resume auto")) is None
    assert_same_run(tmp_path, whole)


def test_ctrl_c_twice_ends_at_once(root, tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin by ignoring it
    # raise_signal, as two signals from kill() may merge into one
    monkeypatch.setattr(RunLog, "line", lambda self, text: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        main.main(arguments(root, tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_leaves_the_last_good_checkpoint(root, whole, tmp_path):
    main.main(arguments(root, tmp_path, epochs=1))
    path = tmp_path / "model" / "run" / "ckpt.pth.tar"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # writing beyond fails as on a full disk
    try:
        with pytest.raises(InputError, match=r"ckpt\.pth\.tar.* while writing"):
            main.main(arguments(root, tmp_path, "--resume auto"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    main.main(arguments(root, tmp_path, "--resume auto"))
    assert_same_run(tmp_path, whole)


# --- what must not continue -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_epoch(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_epoch")
    main.main(arguments(root, folder, epochs=1))
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr 0.5", r"--lr \(after --auto_lr\) is 0\.5, but was 0\.001"),
        ("-b 3", "--batch-size is 3, but was 2"),
        ("--num_class 3", "--num_class is 3, but was 2"),
        ("--lr_steps 1 9", r"--lr_steps is 1\.0 9\.0, but was 1\.0 2\.0"),
        ("--lr_type cos", "--lr_type is cos, but was step"),
        ("--num_segments 3", "--num_segments is 3, but was 2"),
        ("--shift_div 4", "--shift_div is 4, but was 8"),
        ("--dropout 0.2", r"--dropout is 0\.2, but was 0\.5"),
        ("--seed 4", "--seed is 4, but was 3"),
        ("--amp bf16", "--amp is bf16, but was none"),
        ("--clip-gradient 6", r"--clip-gradient is 6\.0, but was 5\.0"),
        ("--arch resnet18", "--arch is resnet18, but was mobilenetv2"),
        ("--online", "--online is on, but was off"),
        ("--momentum 0.8", r"--momentum is 0\.8, but was 0\.9"),
        ("--wd 0", r"--weight-decay is 0\.0, but was 0\.0005"),
        ("--warmup_epochs 1", "--warmup_epochs is 1, but was 0"),
        ("--accum_steps 2", "--accum_steps is 2, but was 1"),
        ("--dense_sample", "--dense_sample is on, but was off"),
        ("--no_flip", r"flips \(off with --no_flip\) is off, but was on"),
        ("--image_backend pillow", "--image_backend is pillow, but was torchvision"),
        ("--no_fc_lr5", "--fc_lr5 is off, but was on"),
    ],
)
def test_other_options_are_refused_with_both_values(root, one_epoch, options, message):
    with pytest.raises(InputError, match=message):
        main.main(arguments(root, one_epoch, f"--resume auto {options}"))


def test_a_shorter_training_list_is_refused(root, one_epoch, tmp_path):
    lines = (root / "kinetics" / "labels" / "train_videofolder.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="videos in the training list is 5, but was 6"):
        main.main(arguments(root, one_epoch, f"--resume auto --train_list {tmp_path / 'list.txt'}"))


def test_another_training_list_of_the_same_length_is_refused(root, one_epoch, tmp_path):
    lines = (root / "kinetics" / "labels" / "train_videofolder.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join(lines[::-1]))
    with pytest.raises(InputError, match=r": checksum of the training list is [0-9a-f]{8}, but was [0-9a-f]{8};"):
        main.main(arguments(root, one_epoch, f"--resume auto --train_list {tmp_path / 'list.txt'}"))


def test_a_finished_run_has_nothing_left_to_do(root, one_epoch, caplog):
    caplog.set_level("INFO")
    before = checkpoint(one_epoch)
    assert main.main(arguments(root, one_epoch, "--resume auto", epochs=1)) is None
    assert (
        "1 epoch done, nothing is left of 1: to train longer, give more --epochs and --resume with this file"
        in caplog.text
    )
    assert same(checkpoint(one_epoch), before)


def test_a_published_checkpoint_continues_at_its_epoch(root, one_epoch, tmp_path):
    ours = checkpoint(one_epoch)
    published = {key: ours[key] for key in ("epoch", "arch", "state_dict", "optimizer", "best_prec1")}
    published["optimizer"]["param_groups"] = [
        {key: value for key, value in group.items() if key in ("params", "lr", "momentum", "lr_mult", "decay_mult")}
        | {"dampening": 0, "weight_decay": 5e-4, "nesterov": False}  # all that SGD of the time knew
        for group in published["optimizer"]["param_groups"]
    ]
    path = tmp_path / "TSM_kinetics_RGB_mobilenetv2_shift8_blockres_avg_segment2_e3.pth.tar"
    torch.save(published, path)
    main.main(arguments(root, tmp_path, f"--resume {path}"))
    assert [row["epoch"] for row in read_epochs(tmp_path / "log" / "run" / "epochs.csv")] == [1, 2]

    wrong = path.rename(tmp_path / "TSM_kinetics_RGB_mobilenetv2_shift4_blockres_avg_segment2_e3.pth.tar")
    with pytest.raises(InputError, match="is of another network: --shift_div is 8, but was 4"):
        main.main(arguments(root, tmp_path, f"--resume {wrong}"))


def test_weights_alone_are_no_run(root, one_epoch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(checkpoint(one_epoch)["state_dict"], path)
    with pytest.raises(InputError, match="holds weights, but no run to continue"):
        main.main(arguments(root, tmp_path, f"--resume {path}"))


@pytest.mark.parametrize(
    "damage", [{"progress": 3}, {"progress": {"epoch": 1, "step": "x"}}, {"log": 1}, {"rng": [[1]]}, {"unread": None}]
)
def test_a_damaged_record_is_one_clear_line(root, one_epoch, tmp_path, damage):
    state = checkpoint(one_epoch)
    state["training"] |= damage
    path = tmp_path / "damaged.pth.tar"
    torch.save(state, path)
    with pytest.raises(InputError, match="damaged"):
        main.main(arguments(root, tmp_path, f"--resume {path}"))


def test_momentum_of_another_network_is_refused(root, one_epoch, tmp_path):
    state = checkpoint(one_epoch)
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(1)
    path = tmp_path / "other.pth.tar"
    torch.save(state, path)
    with pytest.raises(InputError, match="optimizer state does not fit"):
        main.main(arguments(root, tmp_path, f"--resume {path}"))


def test_position_within_an_epoch_is_kept(root, tmp_path, monkeypatch):
    save = ops.training.run.save_checkpoint

    def dying_save(state, path):
        save(state, path)
        raise Killed

    monkeypatch.setattr(ops.training.run, "save_checkpoint", dying_save)
    with pytest.raises(Killed):
        main.main(arguments(root, tmp_path))
    loaded = load_checkpoint(tmp_path / "model" / "run" / "ckpt.pth.tar")
    assert loaded.epoch == 0 and loaded.extra["training"]["progress"]["step"] == 1
