"""Small files of the user: read with errors that name file, place and remedy; written whole or not at all.

Every reader of text, JSON and YAML goes through here, and so does tad.data.csv_table. Text is UTF-8, with or without a
byte order mark, whatever the locale. Nothing but a regular file is opened: a named pipe or a device would be waited for
without end.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tad.errors import DataError, listing, shortened
from tad.words import size
from tad.wrong_file import FRONT, wrong_file

MOST_NODES = 1_000_000
"""Values of a YAML document once its aliases are written out; a few lines of aliases can stand for billions."""
LONGEST_NAME = 200
"""Bytes of a folder's name: file systems take 255."""
LONG_INTEGER = 18
"""Digits; a longer integer of a JSON file is read as a float, infinite if it is beyond one."""


def regular(path: Path) -> Path:
    """The path itself, if a regular file (or a link to one) is there.

    Raises:
        DataError: it is missing, a folder, a named pipe, a socket or a device, or it may not be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing") from None
    except (OSError, ValueError) as error:  # no permission, a loop of links, a name that is too long or holds NUL
        raise DataError(f"{path}: cannot be read: {cause(error)}") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is {_kind(mode)}, not a file")
    return path


def replaceable(path: Path) -> None:
    """Passes if a file may take the place of what is at a path: of nothing, or of another file.

    Raises:
        DataError: it is a folder, a named pipe, a socket, a device or a link, which `path.resolve()` would follow.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise DataError(f"{path}: is a link to {os.readlink(path)}, and stays; remove it, or name what it leads to")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is {_kind(mode)}, not a file; choose another")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_text(path: Path) -> str:
    """The whole text of a file.

    Raises:
        DataError: as `regular`, it cannot be read, it is no text (says what it is), or it is not UTF-8; the message
            names the line.
    """
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {cause(error)}") from None
    if (what := wrong_file(content[:FRONT])) is not None:
        raise DataError(f"{path}: is {what}")
    if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise DataError(f"{path}: is UTF-32; save it as UTF-8")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: is UTF-16, as spreadsheets write it; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}: line {line}: the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        DataError: as `read_text`, not JSON, nested too deeply, or keys appear twice in an object (all are named).
    """
    return parse_json(read_text(path), str(path))


class Doubled(NamedTuple):
    """A key that a JSON object holds more than once, and all its values."""

    key: str
    values: list[Any]


def parse_json(text: str, name: str, doubled: list[Doubled] | None = None) -> Any:
    """A JSON document from its text; `name` is what errors call it.

    Args:
        doubled: takes the keys that appear twice in an object, which then are no error; the last value counts.
    """
    twice: list[Doubled] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, n in Counter(key for key, _ in items).items() if n > 1]
            twice.extend(Doubled(key, [value for k, value in items if k == key]) for key in keys)
        return found

    try:
        document = json.loads(text, object_pairs_hook=pairs, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}: not a JSON file: {error}{_hint(text, error)}") from None
    except RecursionError:
        raise DataError(f"{name}: not a JSON file of this kind: it is nested too deeply") from None
    if doubled is not None:
        doubled += twice
    elif twice:
        raise DataError(f"{name}: " + listing([f"key {one.key!r}: appears twice in one object" for one in twice]))
    return document


def _hint(text: str, error: json.JSONDecodeError) -> str:
    """What usually makes a JSON file break in this way."""
    if not text.strip():
        return "; it is empty"
    if error.msg == "Extra data":
        return "; it holds several documents, one a line maybe (JSON lines): make one of them"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return "; it seems to be cut off"
    if text[error.pos : error.pos + 2] in ("//", "/*") or text[error.pos] == "#":
        return "; JSON has no comments: remove them"
    if error.msg.startswith(("Expecting property name", "Illegal trailing comma")):
        return "; JSON has double quotes, and no comma behind the last item"
    return ""


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= LONG_INTEGER else float(text)


def read_yaml(path: Path) -> Any:
    """A YAML document.

    Raises:
        DataError: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """A YAML document of plain values from its text; `name` is what errors call it.

    Raises:
        DataError: not YAML, nested too deeply, a key appears twice in a mapping, or its aliases stand for too much.
    """
    try:
        loader = _Yaml(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _written_out(node, {}, set()) > MOST_NODES:
                raise DataError(f"{name}: its aliases stand for more than {MOST_NODES:,} values")
            document = loader.construct_document(node)
            if loader.doubled:
                raise DataError(f"{name}: " + listing(loader.doubled))
            return document
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise DataError(f"{name}: not a YAML file: {error}") from None
    except RecursionError:
        raise DataError(f"{name}: not a YAML file of this kind: it is nested too deeply") from None
    except ValueError as error:  # of a date or number that Python has no value for
        raise DataError(f"{name}: not a YAML file of this kind: {error}") from None


class _Yaml(yaml.SafeLoader):
    """Plain values only; notes the keys that appear twice in a mapping, of which YAML would keep the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.doubled: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep)  # raises
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (earlier := seen.get((key.tag, key.value))) is not None and earlier is not key:
                    self.doubled.append(
                        f"line {key.start_mark.line + 1}: the key {key.value!r} appears twice in one mapping"
                    )
                seen[key.tag, key.value] = key
        return super().construct_mapping(node, deep)


def _written_out(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Values below a node if each alias were a copy."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise yaml.composer.ComposerError(None, None, "an alias holds itself", node.start_mark)
    above.add(id(node))
    total = 1
    if isinstance(node, yaml.MappingNode):
        total += sum(_written_out(key, known, above) + _written_out(value, known, above) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_written_out(item, known, above) for item in node.value)
    above.discard(id(node))
    known[id(node)] = total
    return total


def name_of(value: Any) -> str:
    """A class name of a published file: without blanks around it, and with composed characters (Unicode's NFC), for
    files of one data set come from systems that write the same letters in two ways."""
    return unicodedata.normalize("NFC", str(value).strip())


def number(value: Any) -> float:
    """A number of a file, or its text, as a float; true and false are no numbers.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{shortened(value)} is not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        raise ValueError(f"{shortened(value)} is not a number") from None


def beside(path: Path) -> Path:
    """A new hidden name beside `path`, which no other process takes; two hosts may have one process number."""
    name = os.fsencode(path.name)[:200].decode(errors="ignore")  # file systems count bytes, at most 255
    return path.with_name(f".{name}.{uuid.uuid4().hex[:8]}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, so no reader sees half a file.

    The content is on the disk before the rename: a power cut leaves the old file or the new one. If the block raises,
    `path` stays as it was.

    Raises:
        DataError: as `replaceable`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replaceable(path)
    temporary = beside(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file whole; see `whole`."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file whole; see `whole`."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems that have no such promise
            os.fsync(handle)
    finally:
        os.close(handle)


def lack_of_room(place: Path, count: float) -> str | None:
    """What a disk with less room than `count` bytes lacks, in words; None if it has it, or does not say."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return None
    return f"needs about {size(count)} and {size(free)} are free" if count > free else None


def is_path_below(name: str) -> bool:
    """Whether a name from elsewhere, as a path, is a file below a folder and nothing else."""
    plain = name.isascii() and name.isprintable()
    if not plain and any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        return False
    return "\\" not in name and all(p not in ("", ".", "..") and len(p.encode()) <= 255 for p in name.split("/"))


def folder_name(text: str, otherwise: str) -> str:
    """Any text as the name of one folder: no separators, no leading dot or dash, not too long; `otherwise` if nothing
    is left."""
    name = re.sub(r"[^\w.+=@-]+", "-", text).encode(errors="ignore")[:LONGEST_NAME].decode(errors="ignore")
    return name.strip("-.") or otherwise


def cause(error: BaseException) -> str:
    """An error of the operating system in a few words, without the path that the message names anyway."""
    text = getattr(error, "strerror", None)
    return text.lower() if isinstance(text, str) else str(error)
