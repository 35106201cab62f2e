"""The arrays of many videos in a few large files, one for each chunk of videos that a map stage is given.

arrays/000000.arrow   Arrow tensor messages, one for each array, each at a multiple of ALIGNED bytes
arrays/index.arrow    an Arrow IPC file ordered by name: name (KEY/VIDEO), file (its number), offset and size in bytes

Earlier versions wrote KEY/VIDEO.npy, and such artifacts are still read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tad.data.features import PARSING
from tad.files import whole

FOLDER = "arrays"
INDEX = f"{FOLDER}/index.arrow"
ALIGNED = 64
SMALL = 1 << 20
"""Bytes; to map a smaller array into memory takes longer than to read it."""


class Place(NamedTuple):
    """Where an array lies: a file below the artifact's folder, and the bytes of it."""

    file: str
    offset: int
    size: int


def file_name(number: int) -> str:
    """Of the file of a chunk, below the artifact's folder."""
    return f"{FOLDER}/{number:06d}.arrow"


def message(array: np.ndarray) -> pa.Buffer:
    """An array as an Arrow tensor message, filled up to a multiple of ALIGNED bytes.

    Raises:
        TypeError: its values are no numbers in this machine's byte order, and would not come back as they are.
    """
    array, stream = np.asarray(array), pa.BufferOutputStream()
    tensor = pa.Tensor.from_numpy(array)
    if np.dtype(tensor.type.to_pandas_dtype()) != array.dtype:
        raise TypeError(f"an array of {array.dtype} cannot be kept; convert it to numbers of another type")
    pa.ipc.write_tensor(tensor, stream)
    stream.write(bytes(-stream.tell() % ALIGNED))
    return stream.getvalue()


class Rows(NamedTuple):
    """Rows of the index, [N] each."""

    name: np.ndarray
    """Bytes."""
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray


def index_rows(number: int, places: Mapping[str, tuple[int, int]]) -> Rows:
    """The rows of one file: from name to offset and size."""
    offset, size = np.array(list(places.values()), dtype=np.int64).reshape(-1, 2).T
    return Rows(np.array([name.encode() for name in places], dtype=bytes), np.full(len(places), number), offset, size)


def write_index(folder: Path, files: Sequence[Rows]) -> None:
    """Puts the rows of all files together in the folder of an artifact."""
    rows = Rows(*(np.concatenate(column) for column in zip(*files, strict=True)))
    rows = Rows(*(column[np.argsort(rows.name)] for column in rows))
    text = pa.binary(rows.name.itemsize)
    names = pa.Array.from_buffers(text, len(rows.name), [None, pa.py_buffer(rows.name)])
    batch = pa.record_batch([names, *rows[1:]], names=Rows._fields)
    with whole(folder / INDEX) as temporary, pa.ipc.new_file(temporary, batch.schema) as writer:
        writer.write_batch(batch)


def find(folder: Path, key: str, video_id: str) -> Place:
    """Where the array of a video lies.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the index is damaged (also pyarrow's errors).
        OSError: the index cannot be read.
    """
    name, path = f"{key}/{video_id}", f"{folder}/{INDEX}"
    try:
        there = os.stat(path)
    except FileNotFoundError:  # an artifact of an earlier version
        there = None
    if there is not None:
        rows, wanted = _index(path, (there.st_ino, there.st_mtime_ns, there.st_size)), name.encode()
        at = int(rows.name.searchsorted(wanted))
        if at < len(rows.name) and rows.name[at] == wanted:
            return Place(file_name(rows.file[at]), int(rows.offset[at]), int(rows.size[at]))
    if not os.path.lexists(old := f"{folder}/{name}.npy"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
    return Place(f"{name}.npy", 0, 0)


@lru_cache(maxsize=32)
def _index(path: str, state: tuple[int, int, int]) -> Rows:
    """An index, mapped into memory: readers of many videos hold none of it.

    Args:
        state: of the file; another one is another index.
    """
    with pa.memory_map(path) as file:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    name, *columns = (table.column(field).combine_chunks() for field in Rows._fields)
    width = name.type.byte_width
    names = np.frombuffer(name.buffers()[1], f"S{width}", len(name), name.offset * width)
    return Rows(names, *(column.to_numpy() for column in columns))


def read(folder: Path, place: Place) -> np.ndarray:
    """An array, read-only; memory-mapped unless it is small.

    Raises:
        ValueError: it is damaged (also pyarrow's errors).
        OSError: it cannot be read, or the file ends before it.
    """
    path = f"{folder}/{place.file}"
    if place.file.endswith(".npy"):
        with PARSING:
            found = np.load(path, mmap_mode="r" if os.path.getsize(path) >= SMALL else None, allow_pickle=False)
    elif place.size >= SMALL:
        with pa.memory_map(path) as file:
            file.seek(place.offset)
            found = pa.ipc.read_tensor(file).to_numpy()
    else:
        handle = os.open(path, os.O_RDONLY)
        try:
            content = os.pread(handle, place.size, place.offset)
        finally:
            os.close(handle)
        found = pa.ipc.read_tensor(pa.BufferReader(content)).to_numpy()
    found.flags.writeable = False
    return found
