"""One array in a file of features, whatever the kind of file: what its header says, and its values.

.npy; .npz (one array, or by its key); .pt and .pth (a tensor, or a dict of tensors by key); .h5 and .hdf5 (one array,
or by its key; needs h5py); .csv of numbers, a row a line, with or without a line of names. Nothing is unpickled but
tensors, no link leads to another file, and nothing is unpacked that is far larger than its file.
"""

from __future__ import annotations

import functools
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from tad.data.features import FRONT, header_of, read_header, values_of
from tad.errors import DataError, few, first_line
from tad.files import regular
from tad.wrong_file import FRONT as SIGNS
from tad.wrong_file import wrong_file

KINDS = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5", ".csv")
CONTAINERS = (".npz", ".h5", ".hdf5")
"""Kinds in which one file may hold the arrays of many videos, each under its name."""
USUAL_KEYS = ("feats", "features", "feature")
"""Taken where a file holds several arrays and one of them has such a name."""
MOST_PACKED = 200
"""Times that an array may be larger than its bytes in the file: features hardly shrink, traps for memory do."""
FLOATS = {"float16": "float16", "bfloat16": "float32", "float32": "float32"} | dict.fromkeys(
    ("float64", "float96", "float128", "longdouble"), "float32"
)
"""Type that each type of features is stored as; all others are refused."""
REFUSED = {"b": "true or false", "iu": "integers", "c": "complex numbers", "US": "text", "O": "objects", "V": "records"}
"""What types are, by the first letter of their names."""
ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF"
OWN_SIGNS = {".npz": (ZIP,), ".pt": (ZIP, b"\x80"), ".pth": (ZIP, b"\x80"), ".h5": (HDF5,), ".hdf5": (HDF5,)}
"""What files of these kinds begin with."""


class Stored(NamedTuple):
    """An array in a file, known by its header.

    Attributes:
        member: path of the array in its file; None where the file is nothing but the array.
        shape: as it stands there.
        dtype: name of its type, as numpy or torch call it.
        plain: a .npy file of little-endian numbers, row by row: what a dataset folder can hold as it is.
        array: its values, where they are at hand.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: str
    plain: bool = False
    array: np.ndarray | None = None

    @property
    def where(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


Opened = tuple[Stored, Callable[[], np.ndarray]]
"""An array, and what reads its values while its file is open."""


def look(path: Path, key: str | None = None, member: str | None = None) -> Stored:
    """Finds the array of a file and reads its header.

    Args:
        key: name of the array where there are several; not needed where there is one.
        member: name of a video in a file that holds many, or the path of the array in it.

    Raises:
        DataError: no regular file, damaged, of no kind that can be read, or it is not clear which array is meant.
    """
    with _opened(path, key, member) as (stored, _):
        return stored


def values(stored: Stored) -> np.ndarray:
    """The array, in memory or memory-mapped; bfloat16 as float32.

    Raises:
        DataError: the file is damaged, or has changed since it was looked at.
    """
    if stored.array is not None:
        return stored.array
    with _opened(stored.path, stored.member, stored.member) as (_, read):
        array = read()
    if array.shape != stored.shape:
        raise DataError(f"{stored.where}: has changed while it was read")
    return array


def members(path: Path) -> list[str]:
    """Names in a file that may hold the arrays of many videos.

    Raises:
        DataError: as `look`.
    """
    with _reading(regular(path)):
        _check_sign(path, path.suffix.lower())
        if path.suffix.lower() == ".npz":
            return _npz_names(path)
        with _h5(path) as file:
            return list(file)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """[T, D] of a shape: surplus axes of length 1 ([T, 1, 1, D], [1, T, D]) are left out; None if it is no matrix."""
    if len(shape) == 2:
        return shape[0], shape[1]
    long = [n for n in shape if n != 1]
    if len(shape) < 2 or len(long) > 2:
        return None
    return (long[0], long[1]) if len(long) == 2 else (1, math.prod(long))


def refusal(stored: Stored) -> str | None:
    """Why an array cannot be features; None if it can."""
    if stored.dtype not in FLOATS:
        kind = next((what for letters, what in REFUSED.items() if stored.dtype[0] in letters), stored.dtype)
        return f"{stored.where}: holds {kind} ({stored.dtype}); features are float16 or float32"
    if matrix_shape(stored.shape) is None:
        crops = "; of several crops or clips keep one, or their mean" if len(stored.shape) > 2 else ""
        return f"{stored.where}: shape {_text(stored.shape)}, expected [T, D]: a row for each snippet{crops}"
    if math.prod(stored.shape) == 0:
        return f"{stored.where}: is empty: shape {_text(stored.shape)}"
    return None


def _text(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Damage makes the readers raise nearly anything; here it becomes one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        why = first_line(error)
        if isinstance(error, zipfile.BadZipFile):
            why = f"it is cut off or damaged ({why})"
        raise DataError(f"{path}: not a plain {path.suffix.lower()} file: {why}") from None


@contextmanager
def _opened(path: Path, key: str | None, member: str | None) -> Iterator[Opened]:
    kind = regular(path).suffix.lower()
    with _reading(path):
        _check_sign(path, kind)
        if kind == ".npy":
            yield _npy(path)
        elif kind == ".npz":
            yield _npz(path, key, member)
        elif kind in (".pt", ".pth"):
            yield _torch(path, key)
        elif kind in (".h5", ".hdf5"):
            with _h5(path) as file:
                yield _h5_array(path, file, key, member)
        elif kind == ".csv":
            table = _table(path)
            yield Stored(path, None, table.shape, "float32"), lambda: table
        else:
            raise DataError(f"{path}: not a file of features that can be read; kinds are {', '.join(KINDS)}")


def _check_sign(path: Path, kind: str) -> None:
    """Says what a file is that is not of the kind of its name, before a reader says something that misleads."""
    with path.open("rb") as file:
        front = file.read(SIGNS)
    if kind == ".npy" or any(front.startswith(sign) for sign in OWN_SIGNS.get(kind, ())):
        return  # read_header looks itself
    if not front:
        raise DataError(f"{path}: 0 bytes")
    if (what := wrong_file(front)) is not None:
        raise DataError(f"{path}: is not a {kind} file but {what}")


def _npy(path: Path) -> Opened:
    header = header_of(path)
    dtype = header.dtype
    plain = dtype.name in ("float16", "float32") and dtype.newbyteorder("<") == dtype
    by_row = not header.fortran or len(header.shape) < 2
    return Stored(path, None, header.shape, _type_name(dtype), plain and by_row), lambda: values_of(path)[1]


def _check_bytes(where: str, shape: Sequence[int], itemsize: int, there: int, packed: int) -> None:
    """Compares what the header says with the bytes that are there.

    Raises:
        DataError: the file is cut off, or unpacks to far more than it is.
    """
    said = math.prod(shape) * itemsize
    if any(n < 0 for n in shape) or said > there * packed:
        what = "its header says" if packed == 1 else f"that is more than {packed} times as much:"
        raise DataError(
            f"{where}: {there} bytes are there, {what} {_text(shape)} of {itemsize} bytes; cut off or damaged"
        )


def _archive(path: Path) -> zipfile.ZipFile:
    """The open .npz file: one that holds many videos has a long list of contents, which is read once."""
    found = path.stat()
    return _opened_archive(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened_archive(path: Path, size: int, modified_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _npz_names(path: Path) -> list[str]:
    return [name.removesuffix(".npy") for name in _archive(path).namelist() if name.endswith(".npy")]


def _npz(path: Path, key: str | None, member: str | None) -> Opened:
    name = member or _choose(path, _npz_names(path), key)
    archive = _archive(path)
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        header = read_header(file.read(FRONT), info.file_size)
    _check_bytes(f"{path}: {name}", header.shape, header.dtype.itemsize, info.compress_size, MOST_PACKED)

    def read() -> np.ndarray:
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    return Stored(path, name, header.shape, _type_name(header.dtype)), read


def _torch(path: Path, key: str | None) -> Opened:
    import torch

    found, name = _loaded(path), None
    if isinstance(found, dict):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        name = _choose(path, list(tensors), key)
        found = tensors[name]
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided or found.is_quantized or found.is_meta:
        raise DataError(f"{path}: holds no plain tensor")
    found = found.detach()
    _check_bytes(str(path), found.shape, found.element_size(), found.untyped_storage().nbytes(), 1)
    dtype = str(found.dtype).removeprefix("torch.")
    return Stored(path, name, tuple(found.shape), dtype), (found.float() if dtype == "bfloat16" else found).numpy


def _loaded(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # what it thinks of a damaged file comes as an error, too
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # a format from before version 1.6
    except Exception as error:
        if "weights only" not in str(error).lower().replace("_", " "):
            raise
        raise DataError(
            f"{path}: holds more than tensors, which could run code when read; save the tensor alone, or as .npy"
        ) from None


def _table(path: Path) -> np.ndarray:
    """[T, D] float32 of a CSV file, as BSN, BMN and MMAction2 publish them."""
    with path.open("rb") as file:
        first = file.readline(1 << 20).decode("utf-8-sig")
    try:
        named = not [float(field) for field in first.split(",")]
    except ValueError:
        named = True
    options = pacsv.ReadOptions(autogenerate_column_names=True, skip_rows=int(named), use_threads=False)
    table = pacsv.read_csv(path, read_options=options)
    for i, column in enumerate(table.columns):
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)) or column.null_count:
            raise DataError(f"{path}: column {i + 1} holds more than numbers")
    return np.column_stack([column.to_numpy().astype(np.float32) for column in table.columns])


@contextmanager
def _h5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: HDF5 files need h5py: pip install 'tad-selftrain[h5]'") from None
    with h5py.File(path, "r") as file:
        yield file


def _h5_array(path: Path, file: Any, key: str | None, member: str | None) -> Opened:
    """The array of a member, or the file's own: its only one or that of the key."""
    import h5py

    item, names = file, [] if member is None else member.split("/")
    for name in names:
        item = _h5_item(path, item, name)
    while isinstance(item, h5py.Group):
        names.append(_choose(path, list(item), key))
        item = _h5_item(path, item, names[-1])
    where = "/".join(names)
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{path}: {where} is no array")
    if item.external or item.is_virtual:
        raise DataError(f"{path}: {where} takes its values from other files; they are not read")
    shape = tuple(item.shape or ())
    _check_bytes(f"{path}: {where}", shape, item.dtype.itemsize, item.id.get_storage_size(), MOST_PACKED)
    return Stored(path, where, shape, _type_name(item.dtype)), lambda: item[()]


def _h5_item(path: Path, group: Any, name: str) -> Any:
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise DataError(f"{path}: has no {name}")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{path}: {name} is a link, maybe to another file; links are not followed")
    return group[name]


def _choose(path: Path, names: Sequence[str], key: str | None) -> str:
    """The name of the array that is meant."""
    if key is not None:
        if key not in names:
            raise DataError(f"{path}: holds no array {key!r}; it has {few(names, 8) or 'none'}")
        return key
    usual = [name for name in USUAL_KEYS if name in names]
    found = names if len(names) == 1 else usual
    if len(found) != 1:
        raise DataError(f"{path}: expected one array, found {few(names, 8) or 'none'}; choose one with --key")
    return found[0]


def _type_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.kind in "fbiuc" else dtype.kind
