"""Log files of a run: what they hold, and that a resumed run continues them as if never interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.common.errors import InputError
from ops.training.log import EPOCH_COLUMNS, RunLog, git_commit, read_epochs


def read_events(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every scalar that TensorBoard shows of a folder, in the order of time.

    A file that starts with a session's START takes the place of what earlier ones say from its step on.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    events = []
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while len(data) >= 12:  # records: length (8 bytes), checksum (4), event, checksum (4)
            length = int.from_bytes(data[:8], "little")
            if len(data) < 16 + length:  # cut by a kill; readers stop here
                break
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    shown = []
    for event in sorted(events, key=lambda event: event.wall_time):
        if event.session_log.status == SessionLog.START:
            shown = [point for point in shown if point[1] < event.step]
        shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return shown


def write(log: RunLog, epoch: int) -> None:
    log.line(f"Epoch: [{epoch}]")
    log.scalar("loss/train", 1.0 / (epoch + 1), epoch)
    log.scalar("step/loss", 2.0 / (epoch + 1), 10 * epoch, unit="step")
    log.epoch_row({"epoch": epoch, "train_loss": 0.5, "test_top1": 10.0 * epoch if epoch else None})


def test_lines_rows_and_curves(tmp_path, capsys):
    log = RunLog(tmp_path)
    write(log, 0)
    write(log, 1)
    log.close()
    assert capsys.readouterr().out == "Epoch: [0]\nEpoch: [1]\n"
    assert (tmp_path / "log.csv").read_text() == "Epoch: [0]\nEpoch: [1]\n"
    assert (tmp_path / "epochs.csv").read_text().splitlines()[0] == ",".join(EPOCH_COLUMNS)
    rows = read_epochs(tmp_path / "epochs.csv")
    assert [(row["epoch"], row["test_top1"], row["best"]) for row in rows] == [(0, None, None), (1, 10, None)]
    assert read_events(tmp_path) == [("loss/train", 0, 1.0), ("loss/train", 1, 0.5)]
    assert read_events(tmp_path / "steps") == [("step/loss", 0, 2.0), ("step/loss", 10, 1.0)]


def test_resumed_log_equals_an_unbroken_one(tmp_path):
    whole, broken = RunLog(tmp_path / "whole"), RunLog(tmp_path / "broken")
    for epoch in range(4):
        write(whole, epoch)
    whole.close()
    for epoch in range(3):
        write(broken, epoch)
        if epoch == 1:
            state = broken.state()
    broken.line("a line that no checkpoint knows")
    broken.close()  # killed in epoch 3, back to the checkpoint after epoch 1
    with open(next((tmp_path / "broken").glob("events*")), "ab") as file:
        file.write(b"half a rec")
    resumed = RunLog(tmp_path / "broken", resume=state, start=(2, 20))
    write(resumed, 2)  # and killed again before a checkpoint
    resumed.close()
    resumed = RunLog(tmp_path / "broken", resume=state, start=(2, 20))
    for epoch in (2, 3):
        write(resumed, epoch)
    resumed.close()
    for name in ("log.csv", "epochs.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for name in ("", "steps"):
        assert read_events(tmp_path / "broken" / name) == read_events(tmp_path / "whole" / name)


def test_a_new_run_moves_the_old_log_away(tmp_path):
    for number in range(3):
        log = RunLog(tmp_path)
        log.line(f"run {number}")
        log.close()
    assert (tmp_path / "log.csv").read_text() == "run 2\n"
    assert [(tmp_path / f"earlier-{n}" / "log.csv").read_text() for n in (1, 2)] == ["run 0\n", "run 1\n"]
    assert len(list(tmp_path.glob("events*"))) == 1


def test_a_new_run_moves_the_old_checkpoints_with_the_log(tmp_path):
    log, model = tmp_path / "log", tmp_path / "model"
    model.mkdir()
    (model / "earlier-1").mkdir()  # of a run whose log was deleted: the number is taken
    for number in range(2):
        RunLog(log, checkpoints=model).close()
        (model / "ckpt.best.pth.tar").write_text(f"best of run {number}")
    assert (model / "earlier-2" / "ckpt.best.pth.tar").read_text() == "best of run 0"
    assert (log / "earlier-2" / "log.csv").exists() and not (log / "earlier-1").exists()


def test_files_that_are_shorter_than_the_checkpoint_knows_are_not_continued(tmp_path):
    first = RunLog(tmp_path / "a")
    first.line("a long line of the first run")
    state = first.state()
    first.close()
    other = RunLog(tmp_path / "b")
    other.line("other run")
    other.close()
    RunLog(tmp_path / "b", resume=state).close()
    assert (tmp_path / "b" / "earlier-1" / "log.csv").read_text() == "other run\n"


def test_other_processes_write_and_print_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = RunLog(None, echo=False)
    write(log, 0)
    log.describe({}, "note")
    assert log.state() == {}
    log.close()
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_args_are_a_json_value_a_line(tmp_path):
    log = RunLog(tmp_path)
    log.describe({"lr": 0.02, "lr_steps": [20, 40], "suffix": None}, "new run", device="1 x CPU")
    log.close()
    values = dict(line.split(": ", 1) for line in (tmp_path / "args.txt").read_text().splitlines() if line)
    values = {name: json.loads(value) for name, value in values.items()}
    assert (values["lr"], values["lr_steps"], values["suffix"]) == (0.02, [20, 40], None)
    assert values["device"] == "1 x CPU" and values["versions"]["torch"] and values["git_commit"] == git_commit()


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the log in .*file/run"):
        RunLog(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [None, b"epoch,lr\n0,x\n", b"\xff\xfe\x00", b"a\n1,2,3\n"])
def test_a_file_that_is_no_epochs_csv_is_refused(tmp_path, content):
    path = tmp_path / "epochs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"epochs\.csv"):
        read_epochs(path)
