"""Annotation files, folders and lists for the tests of the gen_label tools."""

from __future__ import annotations

from tests.helpers import make_frame_folder
from tools import gen_label_kinetics

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def write(path, *content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return path


def make_folders(root, folders, tmpl="img_{:05d}.jpg"):
    for name, num_frames in folders.items():
        make_frame_folder(root / name, num_frames, (16, 16), tmpl)


def gen_kinetics(folder, *options):
    return gen_label_kinetics.main([str(folder / "images"), "--out", str(folder / "labels"), "--jobs", "1", *options])
