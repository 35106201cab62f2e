"""Errors that the user can mend. The command line prints them without a traceback."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


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
