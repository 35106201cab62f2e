"""What a file is that has another one's name: what failed downloads and forgotten unpacking leave behind."""

from __future__ import annotations

import re

FRONT = 512
"""Bytes at the front of a file that tell."""
UNPACK = "unpack it first"
SIGNS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself; fetch it with `git annex get`"),
    (b"\x1f\x8b", f"packed with gzip; {UNPACK}"),
    (b"\xfd7zXZ\x00", f"packed with xz; {UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"packed with zstd; {UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive; {UNPACK}"),
    (b"PK\x03\x04", "a zip archive (as .npz, .pt and spreadsheets are)"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"PAR1\x15", "a Parquet file"),
    (b"MATLAB 5.0 MAT", "a MATLAB file"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word document; save it as text"),
)
PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<error")
"""What the page of an error begins with."""
TAR = 257, b"ustar"
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
"""The first three letters alone may begin a video's id."""


def wrong_file(front: bytes) -> str | None:
    """What the first bytes of a file (`FRONT` of them) say it is; None if it can be what its name says.

    Text, arrays and archives are told, each by its sign; whoever reads such a kind leaves its sign out before asking.
    """
    for sign, what in SIGNS:
        if front.startswith(sign):
            return what
    if front.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower().startswith(PAGES):
        return "a web page or XML, such as servers send in place of a file; download it again"
    if BZIP2.match(front):
        return f"packed with bzip2; {UNPACK}"
    if front[TAR[0] : TAR[0] + len(TAR[1])] == TAR[1]:
        return f"a tar archive; {UNPACK}"
    if front and not front.strip(b"\0"):
        return "nothing but zeros, as an interrupted copy leaves it; copy or download it again"
    return None
