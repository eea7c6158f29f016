"""test_models.py against plain loops: views, ensembles, protocols, files, faults."""

import csv
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test_models
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import load_into, published_state_dict
from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.data.sampling import test_indices as sample_test
from ops.evaluation.net import PROTOCOLS, Runtime, Views, choose_views, pass_size
from ops.evaluation.scores import Scores
from ops.models import build_model
from tests.helpers import (
    PROJECT,
    make_frame_folder,
    make_kinetics_tree,
    make_list,
    make_packed_flow,
    make_video,
    run_cli,
)
from tests.network.test_runtime import randomize_batchnorm

NUM_VIDEOS, NUM_FRAMES, NUM_CLASSES = 4, 20, 3
SIDE = 32  # crops; the short side is scaled to 32 * 256 // 224 = 36


def write_checkpoint(path, *, seed=0, **options):
    """A checkpoint whose scores differ from video to video."""
    settings = {"dataset": "kinetics", "arch": "resnet18", "num_segments": 4, "input_size": SIDE, **options}
    options = ModelOptions(**{"num_class": NUM_CLASSES, **settings})
    torch.manual_seed(seed)
    model = build_model(options)
    randomize_batchnorm(model)
    torch.nn.init.normal_(model.classifier.weight, 0, 0.1)
    state = {"epoch": 1, "arch": options.arch, "state_dict": published_state_dict(model), "best_prec1": 1.0}
    save_checkpoint({**state, "options": options.to_dict()}, path)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_kinetics_tree(root, NUM_VIDEOS, NUM_FRAMES, size=(56, 42), num_classes=NUM_CLASSES)


@pytest.fixture(scope="module")
def tsm(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("nets") / "tsm.pth.tar", is_shift=True)


@pytest.fixture(scope="module")
def tsn(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "tsn.pth.tar"
    return write_checkpoint(path, seed=1, arch="mobilenetv2", num_segments=3, dropout=0.0)


def arguments(tree, weights, *more, segments="4"):
    base = ["kinetics", "--root_dataset", tree, "--num_class", NUM_CLASSES, "--weights", weights]
    return [str(value) for value in [*base, "--test_segments", segments, "-j", 0, *more]]


def evaluate(tree, weights, tmp_path, *more, segments="4"):
    """Run the command in this process; its Scores."""
    path = tmp_path / "scores.npz"
    test_models.main(arguments(tree, weights, "--scores", path, *more, segments=segments))
    return Scores.load(path)


@pytest.fixture(scope="module")
def expected(tree, tsm, tmp_path_factory):
    """Scores of the TSM net, one crop, one clip."""
    return evaluate(tree, tsm, tmp_path_factory.mktemp("scores"))


# --- views ------------------------------------------------------------------------------------------------------------


def plain_scores(tree, weights, video, *, crops, clips_of, side):
    """Scores of one video, written out: a forward pass a view, with Pillow and without folding or channels_last."""
    checkpoint = load_checkpoint(weights)
    model = build_model(checkpoint.options)
    load_into(model, checkpoint)
    model.eval()
    folder = tree / "kinetics" / "images" / "val" / f"class {video % NUM_CLASSES}" / f"video_{video}"
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    views = []
    for box_of in crops:
        for indices in clips_of(NUM_FRAMES):
            frames = []
            for index in indices:
                image = Image.open(folder / f"img_{index + 1:05d}.jpg").convert("RGB")
                image = image.resize((int(36 * image.width / image.height), 36), Image.Resampling.BILINEAR)
                left, top, flip = box_of(*image.size)
                image = image.crop((left, top, left + side, top + side))
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255.0
                frames.append((pixels - mean) / std)
            with torch.no_grad():
                views.append(model(torch.cat(frames)[None])[0])
    return torch.stack(views).mean(dim=0).numpy()


CENTRE = [lambda w, h: (round((w - 32) / 2), round((h - 32) / 2), False)]
THREE = [lambda w, h, x=x: (x * ((w - 36) // 4), 2 * ((h - 36) // 4), False) for x in (0, 4, 2)]
TEN = [
    lambda w, h, x=x, y=y, flip=flip: (x * ((w - 32) // 4), y * ((h - 32) // 4), flip)
    for x, y in ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
    for flip in (False, True)
]


def uniform(num_frames):
    return [[int(num_frames / 8 + num_frames / 4 * k) for k in range(4)]]


def twice(num_frames):
    return [*uniform(num_frames), [int(num_frames / 4 * k) for k in range(4)]]


def dense(num_frames):
    return [[(16 * k) % num_frames for k in range(4)]] * 10  # starts: all 0, the video is shorter than 64 frames


@pytest.mark.parametrize(
    ("options", "crops", "clips_of", "side"),
    [
        (["--protocol", "efficient"], CENTRE, uniform, 32),
        (["--protocol", "accurate"], THREE, twice, 36),
        (["--protocol", "dense"], THREE, dense, 36),
        (["--test_crops", "10"], TEN, uniform, 32),
        (["--test_crops", "5", "--twice_sample"], TEN[::2], twice, 32),
    ],
)
def test_scores_are_the_mean_over_crops_and_clips(tree, tsm, tmp_path, capsys, options, crops, clips_of, side):
    num_videos = 1 if len(crops) > 1 else 2
    scores = evaluate(tree, tsm, tmp_path, "--image_backend", "pillow", "--max_num", str(num_videos), *options)
    for video in range(num_videos):
        expected = plain_scores(tree, tsm, video, crops=crops, clips_of=clips_of, side=side)
        np.testing.assert_allclose(scores.scores[video], expected, rtol=1e-4, atol=1e-4)
    assert scores.names == ["val/class 0/video_0", "val/class 1/video_1"][:num_videos]
    assert scores.labels.tolist() == [0, 1][:num_videos]
    out = capsys.readouterr().out
    assert f"{num_videos} of {num_videos} video{'s' if num_videos > 1 else ''}\n" in out
    if options[0] == "--protocol":
        assert f"Protocol {options[1]}: {PROTOCOLS[options[1]]}" in out


def test_oracle_of_clips_agrees_with_sampling():
    for clips, options in ((uniform, {}), (twice, {"twice": True}), (dense, {"dense": True})):
        assert sample_test(NUM_FRAMES, 4, **options).tolist() == [index for clip in clips(NUM_FRAMES) for index in clip]


def test_protocols_and_their_conflicts():
    none = {"num_crops": None, "dense": False, "twice": False, "full_res": False}
    assert choose_views("efficient", **none) == Views(1)
    assert choose_views("accurate", **none) == Views(3, twice=True, full_res=True)
    assert choose_views("dense", **{**none, "dense": True, "num_crops": 3}) == Views(3, dense=True, full_res=True)
    assert [PROTOCOLS[name].count for name in ("efficient", "accurate", "dense")] == [1, 6, 30]
    for protocol, given in (
        ("efficient", {"full_res": True}),
        ("accurate", {"num_crops": 1}),
        ("accurate", {"dense": True}),
        ("dense", {"twice": True}),
        (None, {"dense": True, "twice": True}),
    ):
        with pytest.raises(InputError, match=r"contradicts|exclude each other"):
            choose_views(protocol, **{**none, **given})


def test_an_explicit_default_contradicts_a_protocol(tree, tsm, tmp_path):
    with pytest.raises(InputError, match="--test_crops 1"):
        evaluate(tree, tsm, tmp_path, "--protocol", "dense", "--test_crops", "1")


def test_passes_are_equal_where_possible():
    cpu, gpu = Runtime(), Runtime(torch.device("cuda"))
    assert pass_size(30, 8, cpu) == 3  # 10 passes of 24 frames; the limit is 32
    assert pass_size(30, 8, gpu) == 15
    assert pass_size(4, 8, cpu) == 4
    assert pass_size(17, 8, cpu) == 4  # a prime: four full passes and a rest
    assert pass_size(3, 100, cpu) == 1


# --- ensembles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softmax", [False, True])
def test_an_ensemble_is_the_mean_of_weighted_scores(tree, tsm, tsn, expected, tmp_path, capsys, softmax):
    one = expected.scores.astype(np.float64)
    two = evaluate(tree, tsn, tmp_path, segments="3").scores.astype(np.float64)
    if softmax:
        one, two = (np.exp(s) / np.exp(s).sum(axis=1, keepdims=True) for s in (one, two))
    capsys.readouterr()
    more = ["--coeff", "1,1.5", "--batch_size", "2", *(["--softmax"] if softmax else [])]
    both = evaluate(tree, f"{tsm},{tsn}", tmp_path, *more, segments="4,3")
    np.testing.assert_allclose(both.scores, (one + 1.5 * two) / 2, rtol=1e-4, atol=1e-5)
    out = capsys.readouterr().out
    assert "TSM 1/8 blockres, resnet18, RGB, 4 segments" in out  # each net by its own kind
    assert "TSN, mobilenetv2, RGB, 3 segments" in out
    assert out.count(" alone: Prec@1 ") == 2


def test_two_streams_from_one_command(tree, tsm, expected, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tree, root)
    make_packed_flow(root / "kinetics" / "images", root / "kinetics" / "flow")
    lists = root / "kinetics" / "labels"
    shutil.copy(lists / "val_videofolder.txt", lists / "val_videofolder_flow.txt")
    flow = write_checkpoint(tmp_path / "flow.pth.tar", seed=2, modality="Flow", is_shift=True)
    diff = write_checkpoint(tmp_path / "diff.pth.tar", seed=3, modality="RGBDiff", num_segments=2)
    one = ["--max_num", "1"]
    parts = [evaluate(root, w, tmp_path, *one, segments=s).scores for w, s in ((flow, "4"), (diff, "2"))]
    fused = evaluate(root, f"{tsm},{flow},{diff}", tmp_path, *one, segments="4,4,2")
    np.testing.assert_allclose(fused.scores, (expected.scores[:1] + sum(parts)) / 3, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="not packed flow"):  # one folder for both
        evaluate(root, f"{tsm},{flow}", tmp_path, *one, "--root_path", str(root / "kinetics" / "images"), segments="4")


def test_a_file_name_may_hold_a_comma(tree, tsm, expected, tmp_path):
    path = shutil.copy(tsm, tmp_path / "a,b.pth.tar")
    np.testing.assert_array_equal(evaluate(tree, path, tmp_path, "--max_num", "1").scores, expected.scores[:1])


def test_ensembled_lists_must_agree(tree, tsm, tsn, tmp_path):
    lines = [(f"val/class {v % 3}/video_{v}", NUM_FRAMES, v % 3) for v in range(NUM_VIDEOS)]
    good = make_list(tmp_path / "good.txt", lines)
    for number, other in enumerate((lines[::-1], lines[:-1], [(lines[0][0], NUM_FRAMES, 2), *lines[1:]])):
        bad = make_list(tmp_path / f"bad{number}.txt", other)
        with pytest.raises(InputError, match="an ensemble needs the same"):
            evaluate(tree, f"{tsm},{tsn}", tmp_path, "--test_list", f"{good},{bad}", segments="4,3")


@pytest.mark.parametrize(
    ("option", "value"), [("--coeff", "1,2,3"), ("--test_list", "a,b,c"), ("--test_segments", "4,3,2")]
)
def test_lists_of_options_need_one_value_a_net(tree, tsm, tsn, tmp_path, option, value):
    with pytest.raises(InputError, match=f"{option} has 3 values for 2 weights"):
        evaluate(tree, f"{tsm},{tsn}", tmp_path, option, value)


def test_one_weight_takes_one_coefficient_and_is_not_looked_for_before():
    with pytest.raises(InputError, match=r"--coeff has 2 values for 1 weight: give one for each$"):
        test_models.main(["kinetics", "--weights", "none.pth", "--coeff", "1,2"])
    with pytest.raises(InputError, match="must be finite"):
        test_models.main(["kinetics", "--weights", "none.pth", "--coeff", "nan"])


def test_bf16_over_several_gpus_needs_a_process_for_each(monkeypatch):
    monkeypatch.setattr(test_models, "init_from_env", lambda gpus: Process(devices=(0, 1)))
    with pytest.raises(InputError, match=r"torchrun --nproc_per_node=2 test_models\.py"):
        test_models.main(["kinetics", "--weights", "none.pth", "--amp", "bf16"])


# --- what is printed and written --------------------------------------------------------------------------------------


def test_end_lines_progress_and_files(tree, tsm, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("out put.csv", "plots", "p.csv")}
    options = ["--csv_file", files["out put.csv"], "--plots", files["plots"], "--predictions", files["p.csv"]]
    scores = evaluate(tree, tsm, tmp_path, *options)
    lines = capsys.readouterr().out.splitlines()
    right = scores.scores.argmax(axis=1) == scores.labels
    per_class = np.mean([right[scores.labels == cls].mean() for cls in range(NUM_CLASSES)])
    assert lines[-2] == f"Class Accuracy {100 * per_class:.2f}%"
    assert lines[-1] == f"Overall Prec@1 {100 * right.mean():.2f}% Prec@5 100.00%"
    progress = r"video 4 done, total 4/4, average \d+\.\d{3} sec/video, moving Prec@1 "
    progress += rf"{100 * right.mean():.3f} Prec@5 100\.000, eta 0:00:00"
    assert any(re.fullmatch(progress, line) for line in lines)

    with open(files["out put.csv"], newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    expected = [
        [f"val/class {v % NUM_CLASSES}/video_{v}", f"class {scores.scores[v].argmax()}"] for v in range(NUM_VIDEOS)
    ]
    assert rows == expected
    with open(files["p.csv"], newline="") as file:
        predictions = list(csv.DictReader(file))
    assert [row["path"] for row in predictions] == [path for path, _ in expected]
    assert [row["class1"] for row in predictions] == [answer for _, answer in expected]
    assert [row["rank"] == "1" for row in predictions] == right.tolist()
    for name in ("confusion.png", "worst_clips.png"):
        with Image.open(files["plots"] / name) as image:
            assert image.format == "PNG"
    for name in ("per_class.txt", "confused_pairs.txt"):
        assert (files["plots"] / name).read_text().startswith("class ")


def test_progress_counts_the_videos_of_the_whole_job(capsys):
    show = test_models.progress_line(101, Process(world_size=2))
    for done_here in (10, 15, 20, 51):
        show(done_here, 2.0 * done_here, 50.0, 60.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", average")[0] for line in lines] == [f"video {n} done, total {n}/101" for n in (20, 40, 101)]
    assert lines[0].endswith("eta 0:01:21") and lines[-1].endswith("eta 0:00:00")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--csv_file", "nowhere/x.csv", "there is no folder .*nowhere"),
        ("--scores", ".", "is a folder"),
        ("--predictions", "nowhere/p.csv", "--predictions nowhere/p.csv: there is no folder"),
        ("--plots", "file", "cannot write in .*file: File exists; see --plots"),
    ],
)
def test_files_that_cannot_be_written_are_found_before_the_evaluation(option, value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(InputError, match=message):  # before the weights, which are not there
        test_models.main(["kinetics", "--weights", "none.pth", option, value])


def test_somethingv2_writes_the_five_best_indices(tsm, tmp_path):
    root = tmp_path / "root"
    make_frame_folder(root / "frames" / "77", NUM_FRAMES, (56, 42), "{:06d}.jpg")
    listed = make_list(root / "list.txt", [("77", NUM_FRAMES, 1)])
    out = tmp_path / "out.csv"
    options = ["--root_path", root / "frames", "--test_list", listed, "--num_class", "3", "--csv_file", out]
    scores = tmp_path / "scores.npz"
    base = ["somethingv2", "--any_dataset", "--weights", tsm, "--test_segments", "4", "-j", "0", "--scores", scores]
    test_models.main([str(value) for value in [*base, *options]])
    best = np.argsort(-Scores.load(scores).scores[0])
    assert out.read_text() == f"77;{best[0]};{best[1]};{best[2]}\n"


def test_reverse_is_the_video_played_backwards(tree, tsm, expected, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tree, root)
    for folder in (root / "kinetics" / "images" / "val").glob("*/*"):
        names = sorted(path.name for path in folder.iterdir())
        contents = [(folder / name).read_bytes() for name in names]
        for name, content in zip(names, contents[::-1], strict=True):
            (folder / name).write_bytes(content)
    backwards = evaluate(root, tsm, tmp_path)
    reverse = evaluate(tree, tsm, tmp_path, "--reverse")
    np.testing.assert_array_equal(reverse.scores, backwards.scores)
    assert np.abs(reverse.scores - expected.scores).max() > 1e-4


def test_other_ways_to_compute_give_the_same_scores(tree, tsm, expected, tmp_path):
    for options in (["--memory_format", "contiguous"], ["--batch_size", "3", "-j", "1"]):
        scores = evaluate(tree, tsm, tmp_path, *options)
        assert scores.names == expected.names
        np.testing.assert_allclose(scores.scores, expected.scores, rtol=1e-4, atol=1e-5)
    bf16 = evaluate(tree, tsm, tmp_path, "--amp", "bf16")
    np.testing.assert_allclose(bf16.scores, expected.scores, atol=0.05 * np.abs(expected.scores).max())


def test_from_video_files(tree, tsm, tmp_path):
    frames = make_frame_folder(tmp_path / "frames", NUM_FRAMES, (56, 42))
    make_video(tmp_path / "videos" / "a 'b'.mp4", frames)
    listed = make_list(tmp_path / "list.txt", [("a 'b'", NUM_FRAMES, 0)])
    options = ["--io", "video", "--root_path", tmp_path / "videos", "--test_list", listed]
    scores = evaluate(tree, tsm, tmp_path, *options)
    shutil.move(tmp_path / "frames", tmp_path / "a 'b'")
    from_frames = evaluate(tree, tsm, tmp_path, "--root_path", tmp_path, "--test_list", listed)
    np.testing.assert_allclose(scores.scores, from_frames.scores, atol=0.1 * np.abs(from_frames.scores).max())


def test_every_process_takes_its_share(tree, tsm, expected, tmp_path):
    path = tmp_path / "three.npz"  # 5 videos over 3 processes: shares of 2, 2 and 1; one is not there
    lines = (tree / "kinetics" / "labels" / "val_videofolder.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join([*lines[:2], "gone 20 0\n", *lines[2:]]))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", PROJECT / "test_models.py"]
    skipping = ["--test_list", tmp_path / "list.txt", "--on_error", "skip"]
    result = run_cli([*launcher, *arguments(tree, tsm, "--scores", path, *skipping)])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Overall Prec@1") == 1
    assert "4 of 5 videos" in result.stdout
    assert result.stderr.count("list.txt:3: ") == 1
    scores = Scores.load(path)
    assert scores.names == expected.names
    np.testing.assert_array_equal(scores.labels, expected.labels)
    np.testing.assert_allclose(scores.scores, expected.scores, rtol=1e-5, atol=1e-6)


# --- faults -----------------------------------------------------------------------------------------------------------


def test_unreadable_videos_are_named_or_counted(tree, tsm, tsn, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(tree, root)
    broken = root / "kinetics" / "images" / "val" / "class 1" / "video_1" / "img_00008.jpg"  # 20/8 + 20/4 = 7.5
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(InputError, match=r"val_videofolder\.txt:2: .*img_00008\.jpg.*--on_error skip"):
        evaluate(root, tsm, tmp_path)
    capsys.readouterr()
    scores = evaluate(root, f"{tsm},{tsn}", tmp_path, "--on_error", "skip", segments="4,3")
    assert "3 of 4 videos" in capsys.readouterr().out
    assert [name[-1] for name in scores.names] == ["0", "2", "3"]
    whole = evaluate(tree, f"{tsm},{tsn}", tmp_path, segments="4,3")
    np.testing.assert_allclose(scores.scores, whole.scores[[0, 2, 3]], rtol=1e-4, atol=1e-5)

    shutil.rmtree(root / "kinetics" / "images" / "val")
    with pytest.raises(InputError, match="none of the videos could be read"):
        evaluate(root, tsm, tmp_path, "--on_error", "skip")


def test_wrong_number_of_classes(tree, tmp_path):
    weights = write_checkpoint(tmp_path / "four.pth.tar", num_class=4)
    with pytest.raises(InputError, match=r"four\.pth\.tar knows 4 classes, the data set has 3"):
        evaluate(tree, weights, tmp_path)


def test_own_data_needs_no_number_of_classes(tree, tsm, expected, tmp_path):
    folder, listed = tree / "kinetics" / "images", tree / "kinetics" / "labels" / "val_videofolder.txt"
    base = [
        "mine",
        "--any_dataset",
        "--weights",
        tsm,
        "--test_segments",
        "4",
        "-j",
        "0",
        "--scores",
        tmp_path / "s.npz",
    ]
    test_models.main(
        [str(value) for value in [*base, "--root_path", folder, "--test_list", listed, "--scores", tmp_path / "s.npz"]]
    )
    np.testing.assert_array_equal(Scores.load(tmp_path / "s.npz").scores, expected.scores)


def test_other_segments_than_trained_are_warned_of(tree, tsm, tsn, tmp_path, caplog):
    evaluate(tree, tsm, tmp_path, "--max_num", "1", segments="5")
    assert "was trained with 4 segments and is tested with 5" in caplog.text
    caplog.clear()
    evaluate(tree, tsn, tmp_path, "--max_num", "1", segments="5")  # without shift any number is as good
    assert "trained with" not in caplog.text


def test_without_test_segments_a_shift_gets_its_own_number_and_tsn_25(tree, tsm, tsn, tmp_path, capsys):
    for weights, segments in ((tsm, 4), (tsn, 25)):
        arguments_ = [
            value for value in arguments(tree, weights, "--max_num", 1) if value not in ("--test_segments", "4")
        ]
        test_models.main(arguments_)
        assert f" {segments} segments, " in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("name", ["TSM_something_RGB_resnet18_shift8_blockres_avg_segment4_e45.pth", "ours.pth.tar"])
def test_another_data_set_than_the_checkpoint_s_is_refused(tree, tsm, tmp_path, name):
    state = torch.load(tsm, weights_only=True)
    state["options"] = {**state["options"], "dataset": "something"} if name == "ours.pth.tar" else None
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / name)
    with pytest.raises(InputError, match=r"was trained on something, not on somethingv2 \(--any_dataset"):
        test_models.main(["somethingv2", "--weights", str(tmp_path / name), "--root_dataset", str(tree)])


def test_another_order_of_classes_is_refused(tree, tsm, tmp_path):
    state = torch.load(tsm, weights_only=True)
    state["options"]["class_names"] = ["class 0", "class 2", "class 1"]
    torch.save(state, tmp_path / "other.pth.tar")
    with pytest.raises(InputError, match="trained with 'class 2' as class 1, which is 'class 1' in this data set"):
        evaluate(tree, tmp_path / "other.pth.tar", tmp_path)
    assert evaluate(tree, tmp_path / "other.pth.tar", tmp_path, "--any_dataset").num_classes == NUM_CLASSES


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_hostile_weights_are_refused_with_one_line_and_run_nothing(tree, tsm, tmp_path):
    trap = tmp_path / "trap"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": _Bomb(str(trap))}, tmp_path / "code.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Bomb(str(trap))))
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "cut.pth").write_bytes(tsm.read_bytes()[:5000])
    other = torch.load(tsm, weights_only=True)
    other["state_dict"].pop("module.base_model.layer3.0.conv1.net.weight")
    torch.save(other, tmp_path / "missing_key.pth")
    other = torch.load(tsm, weights_only=True)
    other["state_dict"]["module.new_fc.bias"][:] = float("nan")
    torch.save(other, tmp_path / "nan.pth")
    for name, words in (
        ("code.pth", ""),
        ("plain.pth", ""),
        ("text.pth", ""),
        ("cut.pth", ""),
        ("missing_key.pth", "layer3.0.conv1"),
        ("nan.pth", "not finite"),
        ("none.pth", "no such file"),
    ):
        with pytest.raises(InputError, match=re.escape(name)) as caught:
            evaluate(tree, tmp_path / name, tmp_path)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not trap.exists()
    result = run_cli(["test_models.py", *arguments(tree, tmp_path / "code.pth")])
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("test_models.py: error: ")
    assert not trap.exists()


def test_a_published_name_alone_is_enough(tree, tsm, expected, tmp_path):
    """A file without options, under its published name: segments, shift and arch come from the name."""
    state = torch.load(tsm, weights_only=True)
    path = tmp_path / "TSM_kinetics_RGB_resnet18_shift8_blockres_avg_segment4_e50.pth"
    torch.save({"epoch": 50, "arch": "resnet18", "state_dict": state["state_dict"], "best_prec1": 70.0}, path)
    scores = evaluate(tree, path, tmp_path, "--input_size", str(SIDE))
    np.testing.assert_array_equal(scores.scores, expected.scores)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_nets_give_the_same_scores(tree, tsm, expected, tmp_path):
    compiled = evaluate(tree, tsm, tmp_path, "--max_num", "1", "--compile")
    np.testing.assert_allclose(compiled.scores, expected.scores[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_machine_that_cannot_compile(tree, tsm, tmp_path):
    env = {"CXX": "/none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = run_cli(["test_models.py", *arguments(tree, tsm, "--max_num", "1", "--compile")], env=env)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("test_models.py: error: --compile does not work on this machine")
    assert "Traceback" not in result.stderr
