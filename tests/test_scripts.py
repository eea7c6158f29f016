"""Every recipe's command line parses, fits the published table, and lets more options follow."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from ops.checkpoint.options import ModelOptions, store_name
from ops.opts import parse_test_args, parse_train_args
from ops.training.schedule import scaled_lr
from pretrained.table import load_table
from tests.helpers import PROJECT

SCRIPTS = PROJECT / "scripts"
DIGITS = set(SCRIPTS.glob("*_moving_digits*.sh"))  # whole runs that make their data too, as quickstart.sh does
OWN = SCRIPTS / "finetune_own.sh"  # from video files to predictions
TRAIN = sorted({*SCRIPTS.glob("train_*.sh"), *SCRIPTS.glob("finetune_*.sh")} - {*DIGITS, OWN})
TEST = sorted(SCRIPTS.glob("test_*.sh"))
DIST = [SCRIPTS / "dist_one_machine.sh", SCRIPTS / "dist_multi_machine.sh"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a script from another folder; returns the arguments that it gives to Python."""
    folder = tmp_path_factory.mktemp("a b")
    python = folder / "python"
    python.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)

    def run_script(script, *extra, **env):
        env = {"PATH": os.environ["PATH"], "PYTHON": str(python), **env}
        command = ["bash", str(script), *extra]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        where, *arguments = done.stdout.splitlines()
        assert where == str(PROJECT)
        return arguments

    return run_script


def by_name(path):
    return path.stem


def name_of_run(args):
    options = ModelOptions(
        dataset=args.dataset,
        modality=args.modality,
        arch=args.arch,
        num_segments=args.num_segments,
        consensus_type=args.consensus_type,
        is_shift=args.shift,
        shift_div=args.shift_div,
        shift_place=args.shift_place,
        online=args.online,
        non_local=args.non_local,
        dense_sample=args.dense_sample,
    )
    return store_name(options, epochs=args.epochs, pretrain=args.pretrain, lr_type=args.lr_type, suffix=args.suffix)


def figures(path):
    """Percentages in the comment on top."""
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    return [float(number) for number in re.findall(r"([\d.]+) % top-1", " ".join(comment))]


@pytest.mark.parametrize("script", TRAIN, ids=by_name)
def test_training_parses_and_more_options_win(run, script):
    program, *arguments = run(script, "--epochs", "3", "--root_log", "my log")
    args = parse_train_args(arguments)
    assert program == "main.py" and (args.epochs, args.root_log) == (3, "my log")
    assert script.stat().st_mode & 0o111


def test_training_makes_runs_of_the_published_names(run):
    runs = {name_of_run(parse_train_args(run(script)[1:])): figures(script) for script in TRAIN}
    assert len(runs) == len(TRAIN)
    for row in load_table():
        if row.file and row.file.startswith("TSM_"):  # the streaming file is a bare state_dict of another name
            assert runs.pop(row.file.removesuffix(".pth")) == [result.top1 for result in row.results]
    assert len(runs) == 4  # ResNeXt-101 (no file), Jester online, UCF101, HMDB51


def test_recipes_are_the_published_ones(run):
    args = parse_train_args(run(SCRIPTS / "train_tsm_kinetics_rgb_8f.sh")[1:])
    assert (args.lr, args.weight_decay, args.lr_steps, args.epochs) == (0.02, 1e-4, [20, 40], 50)
    assert (args.batch_size, args.dropout, args.clip_gradient, args.no_partialbn) == (128, 0.5, 20, True)
    args = parse_train_args(run(SCRIPTS / "train_tsm_kinetics_rgb_8f_dense.sh")[1:])
    assert (args.lr_steps, args.epochs, args.dense_sample) == ([40, 80], 100, True)
    args = parse_train_args(run(SCRIPTS / "train_tsm_somethingv2_rgb_8f.sh")[1:])
    assert (args.lr, args.weight_decay, args.lr_steps, args.epochs, args.batch_size) == (0.01, 5e-4, [20, 40], 45, 64)
    for dataset in ("ucf101", "hmdb51"):
        args = parse_train_args(run(SCRIPTS / f"finetune_tsm_{dataset}_rgb_8f.sh")[1:])
        assert (args.lr, args.weight_decay, args.lr_steps, args.epochs) == (0.001, 1e-4, [10, 20], 25)
        assert (args.batch_size, args.dropout, args.no_partialbn) == (64, 0.8, False)
        assert args.tune_from.removeprefix("pretrained/") in {row.file for row in load_table()}


def test_every_published_figure_has_one_test_script(run):
    found = []
    for script in TEST:
        program, *arguments = run(script, "--max_num", "5", WEIGHTS="my weights.pth")
        args = parse_test_args(arguments)
        assert (program, args.weights, args.max_num) == ("test_models.py", "my weights.pth", 5)
        if "resnext101" in script.name:
            assert figures(script) == [76.3]
            continue
        args = parse_test_args(run(script)[1:])
        views = (args.test_crops, args.dense_sample, args.twice_sample, args.full_res)
        found.append((args.dataset, args.weights, args.test_segments, views, figures(script)))
    expected = []
    for row in load_table():
        for result in row.results if row.file else ():
            args = parse_test_args([row.dataset, "--weights=x", *result.protocol.options])
            views = (args.test_crops, args.dense_sample, args.twice_sample, args.full_res)
            expected.append((row.dataset, f"pretrained/{row.file}", [result.segments], views, [result.top1]))
    assert sorted(found) == sorted(expected)


def test_test_script_without_released_weights_asks_for_them():
    script = SCRIPTS / "test_tsm_kinetics_rgb_resnext101_8f_dense.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60, env={"PYTHON": "false"})
    assert done.returncode != 0 and "set WEIGHTS to a checkpoint" in done.stderr


@pytest.mark.parametrize("script", DIST, ids=by_name)
def test_distributed_recipe_follows_the_number_of_gpus(run, script):
    arguments = run(script, "--seed", "7", GPUS="4", NODES="3", HEAD="node0:29500")
    processes = 4 * (3 if "multi" in script.name else 1)
    split = arguments.index("main.py")
    assert arguments[:2] == ["-m", "torch.distributed.run"] and "--nproc_per_node=4" in arguments[:split]
    assert ("--rdzv_endpoint=node0:29500" in arguments[:split]) == ("multi" in script.name)
    args = parse_train_args(arguments[split + 1 :])
    assert (args.batch_size, args.workers) == (8 * processes, 4 * 4)  # workers are a machine's
    assert scaled_lr(args.lr, args.batch_size, args.auto_lr) == pytest.approx(0.00125 * processes)  # arXiv:1910.00932
    assert (args.warmup_epochs, args.lr_type, args.resume, args.seed) == (5, "cos", "auto", 7)


@pytest.mark.parametrize("script", DIST, ids=by_name)
@pytest.mark.parametrize("gpus", ["0", "x", "2.5"])
def test_a_number_of_gpus_that_is_none(script, gpus):
    env = {"GPUS": gpus, "NODES": "2", "HEAD": "n:1", "PYTHON": "false", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 2 and done.stderr == f"GPUS is the number of GPUs of a machine, 1 or more, got '{gpus}'\n"


def test_slurm_starts_the_multi_machine_script_on_every_node(run, tmp_path):
    for name, body in (
        ("scontrol", "printf 'n1\\nn2\\n'"),
        ("srun", '[ "$1" = --kill-on-bad-exit=1 ]; shift; exec "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    copy = tmp_path / "slurm_script"  # Slurm runs a copy
    copy.write_bytes((SCRIPTS / "dist_slurm.sh").read_bytes())
    slurm = {"SLURM_SUBMIT_DIR": str(PROJECT), "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    slurm |= {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "9", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    arguments = run(copy, "--epochs", "2", **slurm)
    assert "--rdzv_endpoint=n1:29500" in arguments and "--rdzv_id=tsm-9" in arguments and "--nnodes=2" in arguments
    args = parse_train_args(arguments[arguments.index("main.py") + 1 :])
    assert (args.batch_size, args.epochs) == (64, 2)


@pytest.mark.parametrize(
    ("net", "shift", "online"), [("tsn", False, False), ("tsm", True, False), ("online", True, True)]
)
def test_own_videos_go_from_files_to_predictions(tmp_path, net, shift, online):
    python, out = tmp_path / "python", tmp_path / "o ut"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >>"$LOG"\necho END >>"$LOG"\n')
    python.chmod(0o755)
    (out / "labels").mkdir(parents=True)
    (out / "labels" / "category.txt").write_text("a\nb b\nc\n")
    (tmp_path / "my videos").mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHON": str(python),
        "LOG": str(tmp_path / "log"),
        "NET": net,
        "GROUP": "^.{15}",
    }
    command = ["bash", str(OWN), "my videos", "o ut", "--epochs", "3"]
    subprocess.run(command, env=env, cwd=tmp_path, check=True, timeout=60)
    calls = [call.strip("\n").split("\n") for call in (tmp_path / "log").read_text().split("END\n")[:-1]]
    assert [call[0] for call in calls] == [
        "tools/vid2img_kinetics.py",
        "tools/gen_label_kinetics.py",
        "main.py",
        "test_models.py",
    ]
    assert calls[0][1:3] == [str(tmp_path / "my videos"), str(out / "frames")]
    assert calls[1][-2:] == ["--group", "^.{15}"]
    train, test = parse_train_args(calls[2][1:]), parse_test_args(calls[3][1:])
    assert (train.shift, train.online, train.epochs, train.num_class) == (shift, online, 3, 3)
    assert (train.no_partialbn, train.no_fc_lr5, train.lr, train.batch_size) == (True, True, 0.005, 8)
    assert train.val_list == test.test_list == str(out / "labels" / "val_videofolder.txt")
    assert test.weights == str(out / "checkpoint" / net / "ckpt.pth.tar")


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=by_name)
def test_scripts_are_sound_bash_and_say_what_they_do(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, timeout=60).returncode == 0
    assert script.read_text().splitlines()[1].startswith("#") or script.name in ("setup.sh", "digits.sh")
