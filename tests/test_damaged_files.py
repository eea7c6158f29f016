"""Damaged files, wrong lists and odd names: each refused with one line, with nothing run and nothing half-read."""

import contextlib
import io
import json
import os
import pickle
import resource
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from online_demo.model import load_model
from ops.checkpoint.file import load_checkpoint
from ops.common.class_names import read_class_names
from ops.common.errors import InputError, escaped, is_one_line, run_command
from ops.data.images import read_tensor
from ops.data.lists import read_list
from ops.data.pillow_images import read_image
from ops.data.sources import VideoFile
from ops.evaluation.scores import Scores
from tests.helpers import make_frame_folder, make_frames, make_video
from tests.online_demo.helpers import save_random
from tools import check_dataset, gen_label_kinetics, gen_label_sthv2, predict, vid2img_kinetics
from tools.shared.video_folders import VideoFolders

ESCAPES = "\x1b]0;title\x07\x1b[2J"


class Bomb:
    """Pickles as a call that makes a file."""

    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return open, (str(self.trap), "w")


@contextlib.contextmanager
def refusal(*words):
    """An InputError of one line that holds the words, soon, and with little memory."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10  # KiB


# --- code in files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        load_checkpoint,
        Scores.load,
        read_list,
        read_class_names,
        load_model,
        lambda path: gen_label_sthv2.read_json(path, dict),
        gen_label_kinetics.read_label_map,
        VideoFile.frames,
        lambda path: read_tensor(str(path)),
        lambda path: read_image(str(path)),
    ],
)
def test_a_pickle_in_any_place_is_refused_and_does_not_run(tmp_path, read):
    path, trap = tmp_path / "file.pth", tmp_path / "trap"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(trap)}))
    with refusal("file.pth"):
        list(read(VideoFile(path)) if read is VideoFile.frames else read(path))
    assert sorted(os.listdir(tmp_path)) == ["file.pth"]


def test_scores_that_claim_terabytes_are_refused(tmp_path):
    path = tmp_path / "claim.npz"
    with zipfile.ZipFile(path, "w") as archive:  # claims 4 TB in its header, holds nothing
        for name, kind in (("names", "<U1"), ("labels", "<i8"), ("scores", "<f4")):
            buffer = io.BytesIO()
            np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": (10**12,)})
            archive.writestr(f"{name}.npy", buffer.getvalue())
    with refusal("claim.npz"):
        Scores.load(path)


def test_scores_are_taken_whole_or_not_at_all(tmp_path):
    """A smaller shape in an array's header: numpy reads less, and never sees that the checksum does not match."""
    path = tmp_path / "scores.npz"
    Scores(["a", "b"], np.array([0, 1]), np.eye(2, 12, dtype=np.float32)).save(path)
    data = path.read_bytes()
    assert data.count(b"(2, 12)") == 1
    path.write_bytes(data.replace(b"(2, 12)", b"(2, 11)"))
    with refusal("scores.npz"):
        Scores.load(path)


# --- lists ------------------------------------------------------------------------------------------------------------


def test_odd_names_of_lists_and_folders(tmp_path, capfd):
    """Line breaks, dashes, escapes and bytes that are no text in names: files all the same, and shown on one line."""
    names = [b"line\nbreak", b"-rf", ESCAPES.encode(), b"not \xff text", "\u202eoverride".encode()]
    root = tmp_path / "root"
    for name in names:
        make_frame_folder(root / "class" / os.fsdecode(name), 3)
    make_video(root / "class" / os.fsdecode(b"\xff.mp4"), make_frames(3))
    assert gen_label_kinetics.main([str(root), "--out", str(tmp_path), "--from_folders", "--val_share", "0.5"]) == 1
    assert vid2img_kinetics.main([str(root), str(tmp_path / "frames")]) == 0
    listed = b"".join(path.read_bytes() for path in tmp_path.glob("*_videofolder.txt"))
    assert listed.count(b"\n") == len(names) - 1  # all but the name with a line break
    check_dataset.main([str(tmp_path / "train_videofolder.txt"), str(root), "--decode", "none"])
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err


# --- videos that lead elsewhere ---------------------------------------------------------------------------------------


# --- pictures ---------------------------------------------------------------------------------------------------------


# --- names on the terminal and the page -------------------------------------------------------------------------------


def test_what_is_one_line():
    assert is_one_line("Été: 動作, नमस्‍ते, 👩‍🔬, a\u00a0b") and is_one_line("")
    for text in (ESCAPES, "a\nb", "a\rb", "a\tb", "a\0b", "a\u2028b", "a\x85b", "a\udcffb"):
        assert not is_one_line(text)
        assert is_one_line(escaped(text)) and escaped(text).startswith(escaped(text[:1]))
    assert escaped("a\x1b[2J") == r"a\x1b[2J"


@pytest.mark.parametrize("name", [ESCAPES, "two\x0blines", "n\0ul", "tab\tbed", "line\u2028separator"])
def test_class_names_with_control_characters_are_refused(tmp_path, name):
    path = tmp_path / "category.txt"
    path.write_text(f"fine\n{name}\n", encoding="utf-8")
    with refusal("category.txt:2", "control characters"):
        read_class_names(path)
    Scores([name], np.array([0]), np.ones((1, 2), np.float32)).save(tmp_path / "a.npz")
    with refusal("a.npz"):
        Scores.load(tmp_path / "a.npz")


def test_a_class_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "category.txt").write_text("a\nb\na\n")
    with refusal("category.txt:3", "'a' is there twice"):
        read_class_names(tmp_path / "category.txt")


def test_messages_cannot_write_to_the_terminal(tmp_path, capsys):
    """Keys of a checkpoint, file names, list lines: whatever a message quotes."""

    def fail():
        raise InputError(f"{ESCAPES}\nkey \udcff")

    with pytest.raises(SystemExit, match="2"):
        run_command(fail)
    assert capsys.readouterr().err.endswith(r"error: \x1b]0;title\x07\x1b[2J key \udcff" + "\n")
    weights = tmp_path / "x.pth"
    torch.save({ESCAPES: torch.ones(3), "b": 1}, weights)
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: predict.main(["x.mp4", "--weights", str(weights)]))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err


def test_a_film_whose_name_is_no_text(tmp_path, monkeypatch):
    weights = save_random(tmp_path / "net.pth.tar", arch="resnet18", online=False, input_size=32)
    film = make_video(tmp_path / os.fsdecode(b"film \xff.mp4"), make_frames(9))
    for more in ([], ["--json"]):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "utf-8"))
        with pytest.raises(SystemExit) as ended:
            run_command(lambda more=more: predict.main([str(film), "--weights", str(weights), *more]))
        assert not ended.value.code
        sys.stdout.flush()
        assert b"film \\udcff.mp4" in output.getvalue()
    assert json.loads(output.getvalue())["video"] == str(film)


# --- servers and visitors ---------------------------------------------------------------------------------------------


# --- annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 0, "b": 1.5}', "no whole number"),
        ('{"a": 0, "b": true}', "no whole number"),
        ('{"a": 0, "b": [1]}', "no whole number"),
        ('{"do [x]": 0, "do x": 1}', "twice"),
        ('{"a": 0, "b": 0}', "two have one label"),
        ('{"a": 0, "b": 2}', "labels must be 0 to 1"),
    ],
)
def test_labels_that_lie(tmp_path, text, words):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with refusal("labels.json", words):
        gen_label_sthv2.read_labels(path)


def test_a_video_named_twice_is_listed_once_and_reported(tmp_path, capsys):
    """A damaged id that has become another video's must not give that video a second label."""
    for name in ("a_000001_000011", "b_000001_000011"):
        make_frame_folder(tmp_path / "images" / name, 3)
        make_frame_folder(tmp_path / "images" / "yoga" / name, 3)
    (tmp_path / "map.txt").write_text("yoga\nzumba\n")
    rows = ["yoga,a,1,11,train,0", "zumba,a,1,11,train,0", "yoga,b,1,11,train,0"]
    (tmp_path / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows]))
    (tmp_path / "images" / "zumba").symlink_to(tmp_path / "images" / "yoga")
    arguments = [str(tmp_path / "images"), "--out", str(tmp_path), "--label_map", str(tmp_path / "map.txt")]
    assert gen_label_kinetics.main([*arguments, "--train_csv", str(tmp_path / "train.csv"), "-j", "1"]) == 0
    rows[1] = "yoga,a,1,11,train,0"
    (tmp_path / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows]))
    assert gen_label_kinetics.main([*arguments, "--train_csv", str(tmp_path / "train.csv"), "-j", "1"]) == 1
    listed = (tmp_path / "train_videofolder.txt").read_text().splitlines()
    assert listed == ["yoga/a_000001_000011 3 0", "yoga/b_000001_000011 3 0"]
    assert "a second time" in capsys.readouterr().err


def test_folders_that_cannot_be_listed(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "x" * 300, "nul\0"):
        with refusal():
            VideoFolders(tmp_path, videos=False).names(name)


# --- a run's record ---------------------------------------------------------------------------------------------------
