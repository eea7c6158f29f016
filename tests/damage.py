"""What happens to files: bytes flip, ends go missing, blocks move, another file takes the place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rng = np.random.RandomState

# Files of other kinds in a file's place: a web page, an archive, a picture's beginning, a playlist, text, binary junk.
WRONG_KINDS = (
    b"<!doctype html><title>404 Not Found</title>",
    b"PK\x05\x06" + bytes(18),
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    b"\x1f\x8b\x08\0\0\0\0\0",
    b"\xff\xfev\0i\0d\0e\0o\0 \0001\0\n\0",  # UTF-16
    b"\n",
    b"[]",
    b"{}",
    b"null",
    b"0 0 0\n" * 50,
    b"[" * 100_000,
    b"9" * 10_000,
    b"\0" * 4096,
)


def _span(data: bytes, rng: Rng, longest: int = 4096) -> tuple[int, int]:
    """A stretch [start, stop) of the data, mostly short."""
    length = min(len(data), int(np.exp(rng.uniform(0, np.log(longest)))))
    start = rng.randint(len(data) - length + 1)
    return start, start + length


def flip_bit(data: bytes, rng: Rng) -> bytes:
    """One bit of one byte."""
    at = rng.randint(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randint(8))]) + data[at + 1 :]


def flip_bytes(data: bytes, rng: Rng) -> bytes:
    """Up to eight bytes, anywhere."""
    damaged = bytearray(data)
    for at in rng.randint(len(data), size=rng.randint(1, 9)):
        damaged[at] ^= rng.randint(1, 256)
    return bytes(damaged)


def flip_head(data: bytes, rng: Rng) -> bytes:
    """Up to four bytes of the first 512, where headers are."""
    return flip_bytes(data[:512], rng) + data[512:]


def flip_tail(data: bytes, rng: Rng) -> bytes:
    """Up to eight bytes of the last 512, where archives and videos keep their tables."""
    cut = max(0, len(data) - 512)
    return data[:cut] + flip_bytes(data[cut:], rng)


def other_digit(data: bytes, rng: Rng) -> bytes:
    """One digit of a text becomes another; in a file without any, a byte."""
    places = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return flip_bytes(data, rng)
    at = places[rng.randint(len(places))]
    return data[:at] + b"%d" % rng.randint(10) + data[at + 1 :]


def cut_end(data: bytes, rng: Rng) -> bytes:
    return data[: rng.randint(len(data))]


def cut_start(data: bytes, rng: Rng) -> bytes:
    return data[rng.randint(1, len(data) + 1) :]


def remove_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def insert_noise(data: bytes, rng: Rng) -> bytes:
    at, length = rng.randint(len(data) + 1), int(np.exp(rng.uniform(0, 7)))
    return data[:at] + rng.bytes(length) + data[at:]


def repeat_block(data: bytes, rng: Rng) -> bytes:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:]


def swap_blocks(data: bytes, rng: Rng) -> bytes:
    """Two neighbouring blocks change places."""
    start, stop = _span(data, rng)
    middle = (start + stop) // 2
    return data[:start] + data[middle:stop] + data[start:middle] + data[stop:]


def zero_range(data: bytes, rng: Rng) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def noise_range(data: bytes, rng: Rng) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


_DAMAGES = (
    *(flip_bit, flip_bit, flip_bytes, flip_bytes, flip_head, flip_tail, other_digit, cut_end, cut_start),
    *(remove_block, insert_noise, repeat_block, swap_blocks, zero_range, noise_range),
)


def damage(data: bytes, rng: Rng, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """Name of the damage, and the damaged bytes, which are never the same as `data`.

    others: files of the same kind; a block of one may land in the middle (as when a disk mixes sectors up).
    """
    while True:
        draw = rng.randint(40)
        if draw == 0:
            name, damaged = "empty", b""
        elif draw in (1, 2):
            name, damaged = "wrong kind", WRONG_KINDS[rng.randint(len(WRONG_KINDS))]
        elif draw == 3:
            name, damaged = "noise", rng.bytes(len(data))
        elif draw in (4, 5) and others:
            other = others[rng.randint(len(others))]
            start, stop = _span(other[: len(data)], rng, max(2, min(len(data), len(other)) // 4))
            name, damaged = "other file's block", data[:start] + other[start:stop] + data[stop:]
        else:
            function = _DAMAGES[rng.randint(len(_DAMAGES))]
            name, damaged = function.__name__, function(data, rng)
        if damaged != data:
            return name, damaged
