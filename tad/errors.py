"""Errors that the user can mend. The command line prints them without a traceback."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


class TadError(Exception):
    """Something in the user's input or environment is wrong; the message says what to do about it.

    Its text is safe to print: control characters of file names, class names and values are written as escapes.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class DataError(TadError):
    """A dataset, annotation or feature file cannot be used."""


class ConfigError(TadError):
    """A recipe or a --set override cannot be used."""


class RunError(TadError):
    """A stage failed; what was already written stays."""


class DamagedError(RunError):
    """A file of the artifact store is not what was written there. No input of the user is to blame."""


def listing(problems: Sequence[str], most: int = 20) -> str:
    """Several problems as one message: how many, and the first `most`."""
    head = "\n  ".join(problems[:most])
    more = f"\n  ... and {len(problems) - most} more" if len(problems) > most else ""
    return f"{len(problems)} problem{'s' if len(problems) != 1 else ''}:\n  {head}{more}"


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of many names in one line, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """`did you mean X?` of the known name that is most like this one; None if none is."""
    close = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"did you mean {close[0]}?" if close else None


def cut(text: str, most: int = 200) -> str:
    """A text of a file, cut for a message."""
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def shortened(value: Any, most: int = 60) -> str:
    """`repr` of a value of a file, cut for a message."""
    return cut(repr(value), most)


def first_line(error: BaseException, most: int = 300) -> str:
    """An error of a library in one line: of tracebacks and hints only the beginning; its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:most] if lines else type(error).__name__


def printable(text: str) -> str:
    """Text for a terminal: control, formatting and surrogate characters as escapes; line breaks and tabs stay.

    A terminal obeys control characters (it may clear the screen or change its title), and writing a lone surrogate
    fails.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else c.encode("unicode_escape").decode()
        for c in text
    )
