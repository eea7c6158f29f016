"""`benchmarks.all` keeps what every benchmark prints, as text and as data, and ends with the first that fails."""

import json

import pytest

from benchmarks import all as every
from benchmarks import together
from benchmarks.timing import print_table
from ops.common.errors import InputError


def test_tables_are_read_back_as_they_were_printed(capsys):
    print_table("First, 2 px", ("case", "ms"), [["a", "1.5"], ["b", "10"]], note="Medians.")
    print_table("Second", ("case", "ms"), [["c", "2"]])
    first, second = every.read_tables(capsys.readouterr().out.strip())
    assert (first["title"], first["columns"], first["rows"]) == (
        "First, 2 px",
        ["case", "ms"],
        [["a", "1.5"], ["b", "10"]],
    )
    assert first["notes"][0] == "Medians."
    assert (second["title"], second["rows"], len(second["notes"])) == ("Second", [["c", "2"]], 1)


def test_all_writes_both_files(tmp_path, monkeypatch):
    monkeypatch.setattr(every, "CPU", ("shift --threads 1",))
    every.main(["--out", str(tmp_path / "new"), "--quick"])
    (run,) = json.loads((tmp_path / "new/benchmarks.json").read_text())
    assert run["command"] == "python -m benchmarks.shift --threads 1 --device cpu --quick"
    assert len(run["tables"][0]["rows"]) == 6
    assert f"## `{run['command']}`\n\nTemporal shift" in (tmp_path / "new/benchmarks.md").read_text()


def test_all_says_which_benchmark_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(every, "CPU", ("shift --rounds 0",))
    with pytest.raises(InputError, match=r"python -m benchmarks.shift --rounds 0 --device cpu failed with status 2"):
        every.main(["--out", str(tmp_path)])


def test_two_trainings_at_once_are_compared_with_one(capsys, monkeypatch):
    monkeypatch.setattr(together, "SETTINGS", {"as our commands run": True})
    together.main(["--quick", "--threads", "1"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["as our commands run"]
