"""Every benchmark, one after the other, into one Markdown and one JSON file.

python -m benchmarks.all --out DIR [--device cuda] [--quick]

DIR/benchmarks.md has what each printed, after its command; DIR/benchmarks.json the same tables as data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.common.errors import InputError, run_command
from ops.common.files import atomic_write_text
from ops.opts import ShowDefaults

CPU = (
    "shift",
    "step",
    "loader",
    "evaluate --videos 1 --rounds 3",
    "streaming",
    "together",
)
CUDA = (
    "shift",
    "step --clips 8 --amp --compile --rounds 9",
    "step --clips 64 --amp --rounds 9",
    "step --clips 8 --segments 16 --amp --rounds 9",
    "loader --workers 8",
    "evaluate --videos 8 --rounds 3",
    "streaming --threads 2",
)


def run_one(options: Sequence[str]) -> str:
    """Run a benchmark as a command of its own, its errors shown as they come; returns what it printed.

    Raises:
        InputError: it failed.
    """
    project = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-m", *options], cwd=project, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise InputError(f"python -m {' '.join(options)} failed with status {result.returncode}")
    return result.stdout.strip()


def read_tables(text: str) -> list[dict[str, object]]:
    """The tables that `print_table` has printed, as titles, columns, rows and notes."""
    paragraphs = text.split("\n\n")
    tables = []
    for index, paragraph in enumerate(paragraphs):
        if paragraph.startswith("|"):
            lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in paragraph.splitlines()]
            header, _, *rows = lines
            title, notes = paragraphs[index - 1].strip(), paragraphs[index + 1].splitlines()
            tables.append({"title": title, "columns": header, "rows": rows, "notes": notes})
    return tables


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("--out", type=Path, required=True, help="folder for benchmarks.md and benchmarks.json")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and few rounds, to see that all run")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    texts, data = ["# Benchmarks"], []
    for line in CUDA if args.device.startswith("cuda") else CPU:
        options = [f"benchmarks.{line.split()[0]}", *line.split()[1:], "--device", args.device]
        options += ["--quick"] if args.quick else []
        command = f"python -m {' '.join(options)}"
        print(command, flush=True)
        text = run_one(options)
        print(f"{text}\n", flush=True)
        texts.append(f"## `{command}`\n\n{text}")
        data.append({"command": command, "tables": read_tables(text)})
        # After each: what a later failure must not lose.
        atomic_write_text(args.out / "benchmarks.md", "\n\n".join(texts) + "\n")
        atomic_write_text(args.out / "benchmarks.json", json.dumps(data, indent=1) + "\n")
    print(f"wrote {args.out / 'benchmarks.md'} and {args.out / 'benchmarks.json'}")


if __name__ == "__main__":
    run_command(main)
