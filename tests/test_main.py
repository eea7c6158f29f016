"""main.py end to end, on a Kinetics-shaped folder of a few tiny videos."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import main
from ops.checkpoint.file import load_checkpoint
from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.opts import train_parser
from ops.training.log import read_epochs
from tests.helpers import make_frame_folder, make_frames, make_kinetics_tree, make_list, make_video, run_cli
from tests.training.test_log import read_events

NUM_VIDEOS = 6
SMALL = "--arch resnet18 --pretrain none --npb --input_size 32 --num_segments 2 --num_class 3 -b 3 -j 0 --lr 0.001"
# The published command (README of the paper's repository); options given later win.
PUBLISHED = (
    "kinetics RGB --arch resnet50 --num_segments 8 --gd 20 --lr 0.02 --wd 1e-4 --lr_steps 20 40 --epochs 50 "
    "--batch-size 128 -j 16 --dropout 0.5 --consensus_type=avg --eval-freq=1 "
    "--shift --shift_div=8 --shift_place=blockres --npb"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_kinetics_tree(tmp_path_factory.mktemp("data"), NUM_VIDEOS, num_frames=6, size=(48, 40), num_classes=3)


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    """Runs main.py's main in an empty folder; a relative path is in that folder."""
    monkeypatch.chdir(tmp_path)

    def call(options: str, *more: object) -> int | None:
        return main.main(
            ["kinetics", "RGB", "--root_dataset", str(root), *shlex.split(f"{SMALL} {options}"), *map(str, more)]
        )

    return call


def only(folder: str) -> Path:
    (path,) = Path(folder).iterdir()
    return path


def test_published_command_on_a_small_folder(root, tmp_path):
    smaller = [
        "--arch",
        "resnet18",
        "--pretrain",
        "none",
        "--num_class",
        "3",
        "--input_size",
        "32",
        "-b",
        "3",
        "-j",
        "2",
    ]
    result = run_cli(
        ["main.py", *PUBLISHED.split(), "--root_dataset", root, *smaller, "--num_segments", "4", "--epochs", "2"],
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "To see the curves: tensorboard --logdir " in result.stderr
    name = "TSM_kinetics_RGB_resnet18_shift8_blockres_avg_segment4_e2_none"
    log, model = tmp_path / "log" / name, tmp_path / "checkpoint" / name
    lines = (log / "log.csv").read_text().splitlines()
    assert lines[0].startswith("Epoch: [0][0/2], lr: 0.02000\tTime ")
    rows = read_epochs(log / "epochs.csv")
    expected = "Testing Results: Prec@1 {test_top1:.3f} Prec@5 {test_top5:.3f} Loss {test_loss:.5f}"
    assert [line for line in lines if line.startswith("Testing")] == [expected.format(**row) for row in rows]
    assert lines.count("6 of 6 videos") == 2 and f"Best Prec@1: {rows[-1]['best']:.3f}" in lines
    assert all(line in result.stdout for line in lines)

    tags = {tag for tag, _, _ in read_events(log)}
    assert tags >= {"loss/train", "acc/train_top1", "acc/train_top5", "lr", "loss/test"}
    assert tags >= {"acc/test_top1", "acc/test_top5", "acc/test_top1_best"}
    assert {tag for tag, _, _ in read_events(log / "steps")} == {"step/grad_norm", "step/lr", "step/loss"}
    assert 'shift_place: "blockres"' in (log / "args.txt").read_text()

    checkpoint = load_checkpoint(model / "ckpt.pth.tar")
    assert checkpoint.epoch == 2 and checkpoint.best_prec1 == max(row["test_top1"] for row in rows)
    assert checkpoint.options.is_shift and checkpoint.options.class_names == ["class 0", "class 1", "class 2"]
    keys = torch.load(model / "ckpt.best.pth.tar", weights_only=True)["state_dict"]
    assert "module.base_model.layer1.0.conv1.net.weight" in keys and "module.new_fc.weight" in keys


def test_epochs_file_agrees_with_the_schedule_and_validation_is_every_nth_epoch_and_the_last(run):
    run("--epochs 5 --eval-freq 2 --lr_steps 1 3 --plots plots")
    rows = read_epochs(only("log") / "epochs.csv")
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert [row["test_top1"] is not None for row in rows] == [False, True, False, True, True]
    assert all(row["skipped"] == 0 and row["seconds"] > 0 for row in rows)
    for name in ("curves.png", "confusion.png"):
        with Image.open(Path("plots") / name) as image:
            image.verify()
    assert "class 2" in (Path("plots") / "per_class.txt").read_text()


def test_evaluate_gives_the_checkpoint_s_own_figures_and_writes_nothing(run, capsys):
    run("--epochs 1")
    row = read_epochs(only("log") / "epochs.csv")[0]
    before = sorted(path.name for path in only("log").iterdir())
    capsys.readouterr()
    run("--evaluate --epochs 1 --resume auto")
    assert (
        f"Prec@1 {row['test_top1']:.3f} Prec@5 {row['test_top5']:.3f} Loss {row['test_loss']:.5f}"
        in capsys.readouterr().out
    )
    assert sorted(path.name for path in only("log").iterdir()) == before


def test_fine_tuning_renews_the_head_of_another_data_set(run, root, capsys, caplog):
    run("--epochs 1 --shift")
    source = only("checkpoint") / "ckpt.pth.tar"
    caplog.set_level("INFO")
    labels = root / "kinetics" / "labels"
    lists = ["--train_list", labels / "train_videofolder.txt", "--val_list", labels / "val_videofolder.txt"]
    own = ["--root_path", root / "kinetics" / "images", *lists]
    options = shlex.split(
        f"{SMALL} --epochs 1 --shift --tune_from {source} --lr 1e-30 --wd 0 --fps 30 --root_log l2 --root_model m2"
    )
    main.main(["mine", "RGB", *map(str, own), *options])
    before, after = (torch.load(path, weights_only=True) for path in (source, only("m2") / "ckpt.pth.tar"))
    key = "module.base_model.layer1.0.conv1.net.weight"
    assert torch.equal(before["state_dict"][key], after["state_dict"][key])
    head = "module.new_fc.weight"
    assert not torch.equal(before["state_dict"][head], after["state_dict"][head])
    assert "head new" in caplog.text
    assert after["training"]["options"]["fc_lr5"] is True
    assert before["options"]["frame_rate"] is None
    assert after["options"]["frame_rate"] == 10  # 2 of the videos' 6 frames

    run(f"--epochs 1 --shift --tune_from {source} --lr 1e-30 --wd 0 --root_log l3 --root_model m3")
    same = torch.load(only("m3") / "ckpt.pth.tar", weights_only=True)
    assert torch.equal(before["state_dict"][head], same["state_dict"][head])
    assert same["training"]["options"]["fc_lr5"] is False  # the same data set: the head keeps its rate


def test_a_new_run_of_the_same_name_keeps_the_best_checkpoint_of_the_old_one(run):
    run("--epochs 1 --store_name twice")
    best = Path("checkpoint/twice/ckpt.best.pth.tar").read_bytes()
    run("--epochs 1 --store_name twice --seed 1")
    assert Path("checkpoint/twice/earlier-1/ckpt.best.pth.tar").read_bytes() == best
    assert Path("log/twice/earlier-1/epochs.csv").exists() and Path("checkpoint/twice/ckpt.best.pth.tar").exists()


def test_resuming_another_run_under_the_same_name_keeps_the_checkpoints_of_the_old_one(run):
    run("--epochs 1 --store_name short")
    run("--epochs 1 --store_name long --seed 1")
    last = Path("checkpoint/long/ckpt.pth.tar").read_bytes()
    run("--epochs 2 --store_name long --resume checkpoint/short/ckpt.pth.tar")
    assert Path("checkpoint/long/earlier-1/ckpt.pth.tar").read_bytes() == last
    assert Path("checkpoint/long/ckpt.pth.tar").exists()


def test_no_fc_lr5_is_recorded_and_must_agree_on_resume(run):
    run("--epochs 1 --no_fc_lr5 --store_name even --root_log l --root_model m")
    saved = torch.load("m/even/ckpt.pth.tar", weights_only=True)
    assert saved["training"]["options"]["fc_lr5"] is False
    groups = {group["name"]: group["params"] for group in saved["optimizer"]["param_groups"]}
    assert groups["lr5_weight"] == groups["lr10_bias"] == []
    run("--epochs 2 --store_name even --root_log l --root_model m --resume auto")  # keeps the recorded rate

    run("--epochs 1 --store_name fast --root_log l --root_model m")
    with pytest.raises(InputError, match="fc_lr5"):
        run("--epochs 2 --store_name fast --root_log l --root_model m --resume auto --no_fc_lr5")


@pytest.mark.parametrize(
    "options",
    [
        "--temporal_pool --num_segments 4 --shift",
        "--non_local",
        "--dense_sample --shift --online",
        "--consensus_type identity",
        "--dropout 0 --lr_type cos --warmup_epochs 1",
        "--amp bf16 --accum_steps 2 --clip-gradient 1",
        "--memory_format contiguous --image_backend pillow --deterministic",
        "--arch mobilenetv2 --shift",
        "--sync_bn --auto_lr 6 --no_flip",
    ],
)
def test_options_train_an_epoch(run, options):
    try:
        assert run(f"--epochs 1 -b 6 {options}") is None
    finally:
        torch.use_deterministic_algorithms(False)
    row = read_epochs(only("log") / "epochs.csv")[0]
    assert row["train_loss"] > 0 and row["test_loss"] > 0


@pytest.mark.parametrize("modality", ["Flow", "RGBDiff"])
def test_other_modalities(modality, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmpl = "flow_{}_{:05d}.jpg" if modality == "Flow" else "img_{:05d}.jpg"
    for video in range(2):
        make_frame_folder(tmp_path / "images" / f"v{video}", 8, (48, 40), tmpl, seed=video)
    videos = make_list(tmp_path / "list.txt", [(f"v{video}", 8, video) for video in range(2)])
    paths = ["--train_list", videos, "--val_list", videos, "--root_path", "images", "--image_tmpl", tmpl]
    main.main(["mine", modality, *map(str, paths), *shlex.split(f"{SMALL} --num_class 2 -b 2 --epochs 1")])
    assert read_epochs(only("log") / "epochs.csv")[0]["train_loss"] > 0


def test_video_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for video in range(2):
        make_video(tmp_path / "videos" / f"v{video}.mp4", make_frames(8, (48, 40), seed=video))
    videos = make_list(tmp_path / "list.txt", [(f"v{video}", 8, video) for video in range(2)])
    paths = ["--train_list", videos, "--val_list", videos, "--root_path", "videos", "--io", "video"]
    main.main(["mine", "RGB", *map(str, paths), *shlex.split(f"{SMALL} --num_class 2 -b 2 --epochs 1 --shift")])
    assert read_epochs(only("log") / "epochs.csv")[0]["train_loss"] > 0


def test_unreadable_video_stops_the_run_or_is_counted(run, root, tmp_path, capsys):
    for video in range(3):
        make_frame_folder(tmp_path / "images" / f"v{video}", 6, (48, 40), seed=video)
    for path in (tmp_path / "images" / "v1").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    videos = make_list(tmp_path / "list.txt", [(f"v{video}", 6, video) for video in range(3)])
    lists = ["--train_list", videos, "--val_list", videos, "--root_path", tmp_path / "images"]
    with pytest.raises(InputError, match=r"list\.txt:2: .*v1"):
        run("--epochs 2", *lists)
    run("--epochs 2 --on_error skip", *lists)
    log = (only("log") / "log.csv").read_text()
    assert log.count("Left out: ") >= 1 and "2 of 3 videos" in log
    assert "1 unreadable video left out" in log.splitlines()[-1]
    assert [row["skipped"] for row in read_epochs(only("log") / "epochs.csv")] == [1, 1]


def test_warnings_for_what_is_probably_a_mistake(run, caplog):
    run("--epochs 1 --lr 5 --lr_steps 10 --evaluate --tune_from ''")
    assert "Warning" not in caplog.text  # nothing is trained
    run("--epochs 1 --lr 0.005 --lr_steps 10")
    assert "each batch norm sees 3 clips" in caplog.text
    assert "--lr 0.005 is 11 times the published rate" in caplog.text


MISTAKES = {
    "--online": "give --shift, too",
    "--start-epoch 120": "leaves nothing to do",
    "--class_weights weights.txt": r"cannot read --class_weights weights\.txt: No such file",
    "--resume nowhere.pth.tar": "nowhere.pth.tar",
    "--resume auto --evaluate": "ckpt.pth.tar",
    "--tune_from a --resume b": "give one of them",
    "--tune_from nowhere.pth": "nowhere.pth",
    "--lr 0": "--lr must be more than 0",
    "--gd -1": "--clip-gradient must be more than 0",
    "--wd -1": "--weight-decay must not be negative",
    "--gpus 0": "no such CUDA device",
    "--store_name ../up": "must be the name of a folder",
    "--root_model start": "cannot write in start",
    "--arch resnet19": "resnet19",
    "--num_class 2": r"train_videofolder\.txt:3: label 2|val_videofolder\.txt:3: label 2",
    "--train_list missing.txt": r"missing\.txt",
    "--val_list empty.txt": r"empty\.txt is empty",
    "--root_path nowhere": "nowhere",
    "--shift --shift_place 5": "5",
    "--input_size 3": "input_size must be 32 or more, got 3",
    "--plots start": "cannot write in start: File exists; see --plots",
    "--pretrain text.pth": r"text\.pth",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_mistakes_are_one_clear_line(run, options, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("start").write_text("a file, not a folder")
    Path("empty.txt").write_text("")
    Path("text.pth").write_text("no checkpoint")
    with pytest.raises(InputError, match=MISTAKES[options]):
        run(options)


def test_bf16_over_several_gpus_needs_a_process_for_each(run, monkeypatch):
    monkeypatch.setattr(main, "init_from_env", lambda gpus: Process(devices=(0, 1)))
    with pytest.raises(InputError, match=r"torchrun --nproc_per_node=2 main\.py"):
        run("--amp bf16")


def test_a_mistake_ends_the_command_with_one_line_and_status_2(root, tmp_path):
    result = run_cli(["main.py", "kinetics", "RGB", "--root_dataset", "nowhere"], cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("main.py: error: ") and "nowhere" in result.stderr


def test_a_wrong_option_is_one_line_too(capsys):
    for arguments in ("kinetics RGB --shift_div 0", "kinetics Depth", "kinetics RGB --lr much"):
        with pytest.raises(SystemExit, match="2"):
            train_parser().parse_args(arguments.split())
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_class_weights_are_recorded_and_a_resumed_run_must_have_the_same(run):
    Path("weights.txt").write_text("1\n1\n4\n")  # 2 videos a class
    run("--epochs 1 --class_weights weights.txt")
    checkpoint = load_checkpoint(only("checkpoint") / "ckpt.pth.tar")
    assert checkpoint.extra["training"]["options"]["class_weights"] == pytest.approx([0.5, 0.5, 2.0])
    with pytest.raises(InputError, match=r"--class_weights is off, but was 0\.5 0\.5 2\.0"):
        run("--epochs 1 --resume auto")
    run("--epochs 1 --resume auto --class_weights weights.txt")


def test_a_loss_that_is_not_finite_names_its_samples(run):
    with pytest.raises(InputError, match=r"in step 1 .*\(epoch 0, 3 samples: train/class .*\); a lower --lr"):
        run("--epochs 1 --lr 1e30")


def test_args_can_be_read_back(run):
    run("--epochs 1 --suffix mine")
    folder = only("log")
    assert folder.name.endswith("_e1_none_mine")
    values = dict(line.split(": ", 1) for line in (folder / "args.txt").read_text().splitlines() if line)
    assert json.loads(values["batch_size"]) == 3 and json.loads(values["note"]) == "new run"
