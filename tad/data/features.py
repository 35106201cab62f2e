"""Feature files: what their headers say, whether a dataset can use them, and opening them.

A header is read without numpy's own opening, which waits for a named pipe, unpacks archives and believes any shape.
"""

from __future__ import annotations

import io
import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from tad.data.findings import Finding, error, warning
from tad.data.manifest import FeatureGrid
from tad.data.videos import Video
from tad.errors import DataError, shortened
from tad.files import cause
from tad.wrong_file import FRONT as SIGNS
from tad.wrong_file import wrong_file

FRONT = 16_384
"""Bytes at the front of a file that surely hold its header: numpy reads no longer one."""
CONVERT = "convert it: np.save(path, array.astype(np.float32))"
MOST_OFF, SOME_OFF, ROWS_OFF = 0.1, 0.02, 2
"""Rows may differ from what duration and grid say: extractors differ by a row or two at the end, which is no finding,
and by up to a tenth of the video, which is a warning."""

PARSING = threading.Lock()
"""numpy parses a header as Python text, and Python 3.11 may fail when two threads parse at once (SystemError)."""


class Header(NamedTuple):
    """What stands in front of the values of a .npy file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int
    """Bytes before the first value."""


class Unreadable(ValueError):
    """Why a file is not a plain .npy file."""


def read_header(front: bytes, size: int) -> Header:
    """The header of a .npy file.

    Args:
        front: its first bytes, `FRONT` of them where there are as many.
        size: of the whole file, bytes.

    Raises:
        Unreadable: it is none, is damaged, or promises another size than the file has.
    """
    if size == 0:
        raise Unreadable("0 bytes")
    if not front.startswith(npy.MAGIC_PREFIX):
        what = "a pickle" if front.startswith(b"\x80") else wrong_file(front[:SIGNS]) or "no NumPy array"
        cure = "" if ";" in what else "; save the array alone with np.save, or import it with `tad import`"
        raise Unreadable(f"it is {what}{cure}")
    file = io.BytesIO(front)
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with PARSING:
            shape, fortran, dtype = read(file)
    except Exception as problem:  # numpy parses the header as Python text, and each way of being wrong has its error
        raise Unreadable(f"its header is damaged: {problem}") from None
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise Unreadable(f"its header is damaged: shape {shortened(shape)}")
    if dtype.hasobject:
        raise Unreadable("it holds Python objects, which are never unpacked; save an array of numbers")
    if (promised := file.tell() + math.prod(shape) * dtype.itemsize) != size:
        what = "it is cut off" if promised > size else "there is more behind the array"
        raise Unreadable(f"{what}: {size} bytes, {shortened(promised)} expected of shape {shortened(shape)}, {dtype}")
    return Header(shape, dtype, fortran, file.tell())


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size, if it is a regular one or a link to one.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is a folder, a pipe or a device, or may not be read.
    """
    try:  # without waiting: the other end of a named pipe may never come
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise Unreadable(f"it cannot be opened: {cause(problem)}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise Unreadable("it is a folder, a named pipe or a device, not a file")
    with os.fdopen(handle, "rb") as file:
        yield file, found.st_size


def header_of(path: Path) -> Header:
    """`read_header` of a file here.

    Raises:
        FileNotFoundError, Unreadable: as `opened` and `read_header`.
    """
    with opened(path) as (file, size):
        return read_header(file.read(FRONT), size)


def values_of(path: Path) -> tuple[Header, np.ndarray]:
    """The header, and the values memory-mapped, of any type and shape.

    Raises:
        FileNotFoundError, Unreadable: as `header_of`, or it holds no value.
    """
    with opened(path) as (file, size):
        header = read_header(file.read(FRONT), size)
        return header, _mapped(file, header)


def matrix(path: Path, dim: int, key: str = "grid") -> np.ndarray:
    """[T, dim] float16 or float32, memory-mapped, of this machine's byte order; `key` names the grid in messages.

    Raises:
        FileNotFoundError: there is no file.
        DataError: it cannot be used; says why.
    """
    try:
        with opened(path) as (file, size):
            header = read_header(file.read(FRONT), size)
            if problems := _problems(header, dim, key):
                raise DataError(f"{path}: " + "; ".join(detail for _, detail in problems))
            array = _mapped(file, header)
    except Unreadable as problem:
        raise DataError(f"{path}: not a plain .npy file: {problem}") from None
    return array if header.dtype.isnative else array.astype(header.dtype.newbyteorder("="))


def _mapped(file: BinaryIO, header: Header) -> np.ndarray:
    if not math.prod(header.shape) * header.dtype.itemsize:
        raise Unreadable(f"shape {header.shape}, no value")
    order = "F" if header.fortran else "C"
    return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload, no-any-return]


def _problems(header: Header, dim: int | None, key: str) -> list[tuple[str, str]]:
    """What keeps an array from being features: kind and detail."""
    shape, name = header.shape, header.dtype.name
    wanted = f"expected [T >= 1, {'D' if dim is None else dim}]"
    if len(shape) != 2:
        turned = "; squeeze it" if sum(n > 1 for n in shape) == 2 else ""
        return [("feature shape", f"shape {shape}, {wanted}{turned}")]
    if 0 in shape:
        return [("empty feature file", f"shape {shape}, {wanted}")]
    found = []
    if dim is not None and shape[1] != dim:
        turned = "; it is transposed: save array.T" if shape[0] == dim else ""
        found.append(("feature width", f"shape {shape}, {wanted} ({key}.dim of dataset.yaml){turned}"))
    if name not in ("float16", "float32"):
        how = f"; {CONVERT}" if header.dtype.kind in "fiu" else ""
        found.append(("feature dtype", f"{name} values, expected float16 or float32{how}"))
    return found


def findings_of(header: Header, where: str, grid: FeatureGrid | None, video: Video, key: str = "grid") -> list[Finding]:
    """What a header says against a dataset's grid and the video's duration: `tad check` and `tad run` go by it.

    `key` is that of the grid in dataset.yaml.
    """
    problems = _problems(header, None if grid is None else grid.dim, key)
    found = [error(kind, where, detail) for kind, detail in problems]
    if grid is None or {kind for kind, _ in problems} & {"feature shape", "empty feature file"}:
        return found
    if not problems and header.dtype.name != grid.dtype:
        found.append(warning("feature dtype", where, f"{header.dtype.name}, dataset.yaml says {grid.dtype}"))
    length, expected = header.shape[0], grid.expected_length(video.duration, video.fps)
    off = abs(length - expected)
    detail = f"{length} rows, {expected} expected of {video.duration:g} s on this grid"
    if grid.length is not None:
        wrong = f"{length} rows, {key}.length says {expected}"
        return [*found, error("feature length", where, wrong)] if off else found
    if off > max(ROWS_OFF, MOST_OFF * expected):
        found.append(error("feature length", where, f"{detail}; check {key}.fps, stride and window"))
    elif off > max(ROWS_OFF, SOME_OFF * expected):
        found.append(warning("feature length", where, detail))
    return found
