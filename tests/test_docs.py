"""README and docs: every command is accounted for, every link and anchor leads somewhere, the zoo has every figure."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys

import pytest

from ops.opts import parse_test_args, parse_train_args
from pretrained.table import load_table
from tests.helpers import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "online_demo" / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(PROJECT)): page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Python programs that a test runs, on small data. The command in the text is parsed by the program's own parser.
RUN_BY = {
    "main": "tests/test_main.py",
    "test_models": "tests/test_test_models.py",
    "benchmarks.all": "tests/benchmarks/test_all.py",
    "benchmarks.evaluate": "tests/benchmarks/test_evaluate.py",
    "benchmarks.shift": "tests/benchmarks/test_all.py",
    "benchmarks.streaming": "tests/benchmarks/test_streaming.py",
    "benchmarks.together": "tests/benchmarks/test_all.py",
    "online_demo.backends.tvm_runtime": "tests/online_demo/test_tvm.py",
    "online_demo.compile": "tests/online_demo/test_tvm.py",
    "online_demo.main": "tests/online_demo/test_main.py",
    "pretrained.fetch": "tests/pretrained/test_fetch.py",
    "pretrained.reproduce": "tests/pretrained/test_reproduce.py",
    "tests.fuzz_readers": "tests/test_long_runs.py",
    "tests.kill_training": "tests/training/test_resume.py",
    "tests.soak_streaming": "tests/test_long_runs.py",
    "tests.two_hosts": "tests/common/test_distributed.py",
    "tools.check_dataset": "tests/tools/test_check_dataset.py",
    "tools.convert_online": "tests/tools/test_convert_online.py",
    "tools.draw_shift": "tests/test_doc_examples.py",
    "tools.early_recognition": "tests/tools/test_early_recognition.py",
    "tools.export_onnx": "tests/network/test_onnx_export.py",
    "tools.extract_features": "tests/tools/test_extract_features.py",
    "tools.extract_flow": "tests/tools/test_extract_flow.py",
    "tools.fuse_scores": "tests/evaluation/test_fuse_scores.py",
    "tools.gen_label_hmdb51": "tests/tools/test_gen_label.py",
    "tools.gen_label_jester": "tests/tools/test_gen_label.py",
    "tools.gen_label_kinetics": "tests/tools/test_gen_label_kinetics.py",
    "tools.gen_label_sthv1": "tests/tools/test_gen_label.py",
    "tools.gen_label_sthv2": "tests/tools/test_gen_label.py",
    "tools.gen_label_ucf101": "tests/tools/test_gen_label.py",
    "tools.model_info": "tests/test_doc_examples.py",
    "tools.predict": "tests/tools/test_predict.py",
    "tools.vid2img_kinetics": "tests/tools/test_vid2img.py",
    "tools.vid2img_sthv2": "tests/tools/test_vid2img.py",
}
# Other commands, and why no test runs them as they stand.
NOT_RUN = {
    "bash": "whole runs of minutes; tests/test_scripts.py checks what every script gives to Python",
    "sbatch": "needs Slurm; tests/test_scripts.py runs the script under a stand-in",
    "docker": "needs Docker",
    "pip": "needs the network",
    "source": "changes the shell that reads it",
    "sudo": "changes the system",
    "ssh": "needs a board",
    "scp": "needs a board",
    "openssl": "tests/online_demo/test_web.py makes such a certificate",
    "mkdir": "makes a folder of the user's",
    "ffmpeg": "needs a camera",
    "smooth": "the example of docs/extend.md, which tests/test_extend.py runs",
    "torchrun": "tests/common/test_distributed.py runs it",
    "venv": "makes an environment",
}
# Programs that only measure: their options are parsed, too.
MEASURE = {
    "benchmarks.loader": "for minutes",
    "benchmarks.step": "for minutes; tests/benchmarks/test_all.py runs its steps",
}
# Blocks of shell language that is no list of commands; `bash -n` reads them, too.
SHELL_BLOCKS = {
    ("docs/real_clips.md", "films=("): "needs the clips",
    ("docs/tvm.md", "for deb in"): "needs aarch64 files",
}
# What runs the Python blocks of a page, in order.
PYTHON_BLOCKS = {
    "README.md": ["tests/test_doc_examples.py"] * 2,
    "docs/export.md": ["tests/test_doc_examples.py"] * 2,
    "docs/extend.md": ["tests/test_extend.py"] * 5,
    "docs/published.md": ["tests/test_doc_examples.py"],
}


def blocks(page: str, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(TEXTS[page]) if language in languages]


def is_shell_block(page: str, text: str) -> bool:
    return any(page == name and start in text for name, start in SHELL_BLOCKS)


def documented() -> list[tuple[str, str]]:
    """(page, command) of all pages: a line of a fenced block each, and what is quoted in the text or a table."""
    found = []
    for page, text in TEXTS.items():
        for block in blocks(page, "bash"):
            if not is_shell_block(page, block):
                found += [(page, line) for line in block.replace("\\\n", " ").splitlines()]
        found += [(page, line) for line in re.findall(r"`((?:python3?|bash|docker|torchrun|sbatch) [^`\n]+)`", text)]
    return [(page, part) for page, line in found for part in parts(line)]


def parts(line: str) -> list[str]:
    """The commands of a line that are joined by `&&`, without comments and redirections."""
    line = re.sub(r'"\$\(.*?\)"', "12", line)  # a number that another command finds
    words = shlex.split(line, comments=True)
    return [shlex.join(shlex.split(part)) for part in shlex.join(words).split(" '&&' ")] if words else []


COMMANDS = documented()


def program(command: str) -> tuple[str, list[str]]:
    """A module of the project or the name of another program, and its arguments."""
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    name, *arguments = words
    if name in ("python", "python3"):
        name, arguments = (arguments[1], arguments[2:]) if arguments[0] == "-m" else (arguments[0], arguments[1:])
        name = {"tvm_runtime.py": "online_demo/backends/tvm_runtime.py"}.get(name, name)  # as copied to a board
        name = name.removesuffix(".py").replace("/", ".")
    return name, arguments


class Parsed(Exception):
    """A program's parser took its arguments."""


@pytest.fixture
def parse(monkeypatch):
    """Give arguments to a program's own parser, and stop it there; SystemExit where it does not take them."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Parsed(real(self, args, namespace))

    def parse(module: str, arguments: list[str]) -> None:
        if module in ("main", "test_models"):
            (parse_train_args if module == "main" else parse_test_args)(arguments)
            return
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
            with pytest.raises(Parsed):
                importlib.import_module(module).main()

    return parse


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_is_accounted_for(page, parse):
    for command in [command for where, command in COMMANDS if where == page]:
        name, arguments = program(command)
        if name in NOT_RUN:
            continue
        assert name in MEASURE or (PROJECT / RUN_BY.get(name, "")).is_file(), f"{page}: who runs {command}?"
        if any(word.startswith("...") for word in arguments):  # quoted in part
            continue
        try:
            parse(name, arguments)
        except SystemExit:
            pytest.fail(f"{page}: its own parser does not take: {command}")


def test_what_is_listed_is_needed():
    names = {program(command)[0] for _, command in COMMANDS}
    assert {*NOT_RUN, *RUN_BY, *MEASURE} - names == set()
    for name, test in RUN_BY.items():
        assert name.rsplit(".", 1)[-1] in (PROJECT / test).read_text(encoding="utf-8"), f"{test} does not run {name}"
    for (page, start), reason in SHELL_BLOCKS.items():
        assert reason and any(start in block for block in blocks(page, "bash"))


def test_the_shell_reads_every_block():
    script = "\n".join(block for page in TEXTS for block in blocks(page, "bash"))
    script = re.sub(r"\[OPTION[^\]]*\]", "", script)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_block_says_its_language():
    languages = {language for text in TEXTS.values() for language, _ in FENCE.findall(text)}
    assert languages == {"bash", "python", "bibtex"}
    assert {page: len(blocks(page, "python")) for page in TEXTS if blocks(page, "python")} == {
        page: len(tests) for page, tests in PYTHON_BLOCKS.items()
    }
    assert all((PROJECT / name).is_file() for names in PYTHON_BLOCKS.values() for name in names)


# --- links ------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_files_exist(page):
    text = TEXTS[page]
    folder = (PROJECT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        linked = (folder / path).resolve() if path else PROJECT / page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{page}: {target}"
    places = "archs|benchmarks|docs|online_demo|ops|scripts|tests|tools"
    for name in re.findall(rf"(?<![\w/-])((?:{places})/[\w./-]*\w|requirements[\w-]*\.txt)", text):
        made = name.isupper() or name.rsplit("/", 1)[-1].isupper()  # a name for the user to choose
        assert made or (PROJECT / name).exists() or (folder / name).exists(), f"{page}: {name}"


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 220


# --- the zoo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_the_zoo_has_every_figure_and_the_scripts_of_each(page):
    lines = [line for line in TEXTS[page].splitlines() if line.startswith("| ") and "scripts/train_" in line]
    for row in load_table():
        own = [line for line in lines if f"`{row.name}`" in line or f"`{row.name}`," in line]
        assert own and all(line.endswith("| no |") for line in own), row.name  # none was reproduced here
        for result in row.results:
            text = f"{result.top1:.1f}"
            if page == "README.md":
                script = re.search(rf"\[{text}\]\((scripts/test_\w+\.sh)\)", own[0])
            else:
                (line,) = [line for line in own if f"| {result.protocol.name} |" in line]
                assert f"| {text} " in line
                script = re.search(r"\[test\]\(\.\./(scripts/test_\w+\.sh)\)", line)
            content = (PROJECT / script[1]).read_text(encoding="utf-8")
            assert f"{text} %" in content and (row.file is None or row.file in content), row.name
