""".npy files of Python objects, as W-TALC's: read without unpickling.

Such a file is a pickle: a small program that can name any function of Python and call it. Here the program is not run.
Its steps are listed (pickletools reads them and executes nothing) and followed by a machine that knows texts, numbers,
lists, tuples and numpy arrays, and refuses everything else by name. The data of large arrays stays in the file and is
mapped, and a file that refers to one thing again and again to grow is refused.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from tad.errors import DataError
from tad.files import cause, regular
from tad.wrong_file import FRONT, wrong_file

KNOWN = {
    (f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")
} | {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): "dtype", ("_codecs", "encode"): "encode"}
"""What a file may name, by module and name; each stands for a few lines below, never for the function itself."""
TYPE = re.compile(r"[fiubSU]\d{1,9}|O\d?")
"""Numpy types: numbers, text and objects; no records, no times."""
MAPPED = 4096
"""Bytes from which a text of bytes stays in the file."""
ROOM = 16
"""Bytes that may be built for each byte of the file: a reference to an object takes 8."""
SIZES = {"SHORT_BINSTRING": 1, "BINSTRING": 4, "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
"""Bytes that tell the length of what follows."""
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(ValueError):
    """A step that is not followed."""


def load(path: Path) -> np.ndarray:
    """An array of a .npy file; one of objects holds text, bytes, numbers, None, lists, tuples and arrays only.

    Raises:
        DataError: it cannot be read, is damaged, or asks for anything else.
    """
    try:
        with regular(path).open("rb") as file:
            front = file.read(FRONT)
            if not front.startswith(np.lib.format.MAGIC_PREFIX):
                raise DataError(f"{path}: is {wrong_file(front) or 'no .npy file'}")
            file.seek(0)
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version} of the format")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if not dtype.hasobject:
                return np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
            if dtype.kind != "O":
                raise Refused(f"records of type {dtype}")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            content.seek(file.tell())
        found = _Machine(content).follow()
        if not isinstance(found, np.ndarray) or found.dtype.kind != "O" or found.shape != shape:
            raise ValueError("it does not hold the array that its header announces")
        return found
    except Refused as error:
        known = "arrays, lists, numbers and text"
        raise DataError(f"{path}: holds {error}; nothing but {known} is read from a file of objects") from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {cause(error)}") from None
    except Exception as error:  # a damaged file fails in many ways, in numpy and in pickletools
        text = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"{path}: is damaged, or no .npy file ({text})") from None


def text(value: Any) -> str:
    """A text of such a file without blanks around it; bytes are UTF-8.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, str):
        return value.strip()
    raise ValueError(f"{type(value).__name__} in place of text")


class _Named:
    """A function or class that the file names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class _Mapped:
    """Bytes that stay in the file."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset, self.size = offset, size


class _Type:
    """A numpy type; its byte order follows."""

    def __init__(self, name: Any) -> None:
        name = name.decode("ascii") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not TYPE.fullmatch(name):
            raise Refused(f"an array of type {name!r:.40}" if isinstance(name, str) else "an array without a type")
        self.dtype = np.dtype(name)


class _Array:
    """A numpy array; its data follows."""

    value: np.ndarray | None = None


class _Machine:
    """Follows the steps of a pickle; nothing that the file names is imported or called."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.room = ROOM * len(content) + (1 << 20)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def follow(self) -> Any:
        """The value that the steps build.

        Raises:
            Refused: a step is none of those known here. ValueError and others: they make no sense.
        """
        for opcode, argument, position in pickletools.genops(self.content):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                (value,) = self._tail(1)
                return self._whole(value)
            self._step(opcode.name, argument, position or 0)
        raise ValueError("it ends too early")

    def _step(self, name: str, argument: Any, position: int) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name == "MARK":
            self.marks.append(len(stack))
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in SIZES:
            if len(argument) >= MAPPED:
                stack.append(_Mapped(position + 1 + SIZES[name], len(argument)))
            else:  # pickletools gives the bytes of Python 2 as text
                stack.append(argument.encode("latin-1") if isinstance(argument, str) else argument)
        elif name in VALUES:
            stack.append(argument)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "LIST":
            stack.append([self._whole(item) for item in self._since_mark()])
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else self._tail(1)
            if not isinstance(stack[-1], list):
                raise ValueError("a step that appends to something that is no list")
            stack[-1].extend(map(self._whole, items))
        elif name == "TUPLE" or name in TUPLES:
            items = self._since_mark() if name == "TUPLE" else self._tail(TUPLES[name])
            stack.append(tuple(self._whole(item) if isinstance(item, _Array) else item for item in items))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            named = tuple(argument.split(" ", 1)) if name == "GLOBAL" else self._tail(2)
            if not all(isinstance(part, str) for part in named) or named not in KNOWN:
                raise Refused(f"the name {'.'.join(map(str, named))}"[:200])
            stack.append(_Named(KNOWN[named]))
        elif name == "REDUCE":
            stack.append(self._call(*self._tail(2)))
        elif name == "BUILD":
            (state,) = self._tail(1)
            self._build(stack[-1], state)
        else:
            raise Refused(f"the step {name}")

    def _tail(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise IndexError("a step without its values")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def _grow(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise Refused("something that grows far beyond the size of the file")

    def _whole(self, value: Any) -> Any:
        """A value that is finished."""
        if isinstance(value, _Array):
            if value.value is None:
                raise ValueError("an array without data")
            return value.value
        if isinstance(value, _Mapped):
            self._grow(value.size)
            return self.content[value.offset : value.offset + value.size]
        if isinstance(value, _Named | _Type):
            raise Refused("a function or type in place of a value")
        return value

    def _call(self, function: Any, given: Any) -> Any:
        """What the few known functions make of their arguments."""
        if not isinstance(function, _Named) or not isinstance(given, tuple):
            raise Refused("a call of something that is no known function")
        if function.kind == "_reconstruct":
            if not isinstance(given[0], _Named) or given[0].kind != "ndarray":
                raise Refused("an array of another class than numpy's")
            return _Array()
        if function.kind == "dtype":
            return _Type(given[0])
        if function.kind == "scalar" and isinstance(given[0], _Type):
            self._grow(given[0].dtype.itemsize)
            return self._plain(given[0].dtype, given[1], 1)[0].item()
        if function.kind == "encode" and isinstance(given[0], str) and given[1] in ("latin1", b"latin1"):
            self._grow(len(given[0]))
            return given[0].encode("latin-1")
        raise Refused(f"a call of {function.kind}")

    def _build(self, target: Any, state: Any) -> None:
        if not isinstance(state, tuple):
            raise Refused("the state of an object that is no array")
        if isinstance(target, _Type):
            order, *rest = state[1:5]
            if any(part is not None for part in rest):
                raise Refused("an array of records")
            order = order.decode("ascii") if isinstance(order, bytes) else order
            if order not in ("<", ">", "|", "="):
                raise ValueError("an unknown byte order")
            target.dtype = target.dtype.newbyteorder(">" if order == ">" else "<")
        elif isinstance(target, _Array):
            _, shape, kind, fortran, data = state
            if not isinstance(kind, _Type) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError("an array without type or shape")
            size = int(np.prod(shape, dtype=object)) if shape else 1
            found = self._objects(data, size) if kind.dtype.kind == "O" else self._plain(kind.dtype, data, size)
            target.value = found.reshape(shape, order="F" if fortran else "C")
        else:
            raise Refused("the state of an object that is no array")

    def _objects(self, data: Any, size: int) -> np.ndarray:
        if not isinstance(data, list) or len(data) != size:
            raise ValueError(f"an array of {size} objects without them")
        self._grow(8 * size)
        found = np.empty(size, dtype=object)
        for i, item in enumerate(data):
            found[i] = item
        return found

    def _plain(self, dtype: np.dtype, data: Any, size: int) -> np.ndarray:
        """[size] numbers or texts; the data of large arrays is not copied."""
        if isinstance(data, str):
            self._grow(len(data))
            data = data.encode("latin-1")
        if not isinstance(data, bytes | _Mapped) or dtype.kind == "O":
            raise ValueError("an array without data")
        have = data.size if isinstance(data, _Mapped) else len(data)
        if have != size * dtype.itemsize:
            raise ValueError(f"an array of {size} values of {dtype} in {have} bytes")
        if not size or not dtype.itemsize:
            return np.zeros(size, dtype) if size <= have else np.empty(0, dtype)
        if isinstance(data, _Mapped):
            return np.frombuffer(self.content, dtype, size, data.offset)
        return np.frombuffer(data, dtype, size)
