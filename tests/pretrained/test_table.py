"""The table of published checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.checkpoint.options import options_from_name
from ops.common.errors import InputError
from pretrained.table import Row, find_row, load_table, local_path
from tests.helpers import PROJECT

NAME = "jester_tsm_mobilenetv2_online"
FILE = "mobilenetv2_jester_online.pth.tar"
RELEASED = [row for row in load_table() if row.file]


def test_the_table_is_the_published_one() -> None:
    assert len(load_table()) == 15 and len(RELEASED) == 14
    assert len({row.name for row in load_table()}) == 15
    figures = {(row.name, r.protocol.name): r.top1 for row in load_table() for r in row.results}
    assert len(figures) == 21
    assert figures["kinetics_tsm_resnet50_8f", "uniform10"] == 72.8
    assert figures["something_tsm_resnet50_16f", "accurate"] == 48.4
    assert find_row("kinetics_tsm_resnet50_flow_8f").results[0].top5 == 79.5
    assert {row.url for row in RELEASED} == {
        f"https://hanlab18.mit.edu/projects/tsm/models/{row.file}" for row in RELEASED
    }


@pytest.mark.parametrize("row", RELEASED, ids=lambda row: row.name)
def test_names_and_columns_agree(row: Row) -> None:
    options = options_from_name(row.file)
    assert (options.dataset, options.modality) == (row.dataset, row.modality)
    assert options.arch.lower() in row.model.lower().replace(" ", "")
    assert options.is_shift == ("TSM" in row.model)
    assert options.non_local == row.model.endswith("NL")
    assert options.online == ("streaming" in row.model)
    for name in row.names():
        assert find_row(name) is row


def test_protocols_are_the_papers() -> None:
    protocols = {result.protocol.name: set(result.protocol.options) for row in load_table() for result in row.results}
    assert protocols == {
        "efficient": {"--test_crops=1"},
        "uniform10": {"--test_crops=10"},
        "accurate": {"--twice_sample", "--test_crops=3", "--full_res"},
        "dense": {"--dense_sample", "--test_crops=3", "--full_res"},
    }


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(InputError, match="perhaps kinetics_tsm_resnet50_8f"):
        find_row("kinetics_tsm_resnet50")


def test_weights_are_a_file_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSM_PRETRAINED", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(InputError, match=rf"not there yet: run python -m pretrained.fetch {NAME}"):
        local_path(NAME)
    fetched = tmp_path / FILE
    fetched.write_bytes(b"x")
    for name in (NAME, FILE, "mobilenetv2_jester_online", f"pretrained/{FILE}", fetched):
        assert local_path(name) == fetched
    for name in ("nothing", f"elsewhere/{FILE}", tmp_path / "nothing"):
        with pytest.raises(InputError, match="no such file, and no published checkpoint of that name"):
            local_path(name)
    with pytest.raises(InputError, match="only the figure of this model was published"):
        local_path("kinetics_tsm_resnext101_8f_dense")


def test_the_project_folder_of_files_is_ignored_by_git() -> None:
    assert "/pretrained/files/" in (PROJECT / ".gitignore").read_text().splitlines()
