"""A benchmark's command in this process: importing torch anew for each would take longer than most of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch


class Called(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def called(main: Callable[[], None], *words: object, without: tuple[str, ...] = (), **environment: str) -> Called:
    """What the command leaves: code and text, as of a process of its own.

    Args:
        words: after the command's name.
        without: variables of the environment that it is not given.
        environment: variables that it is given.
    """
    kept = {name: value for name, value in os.environ.items() if name not in without} | environment
    code, out, err = 0, io.StringIO(), io.StringIO()
    environment_as_given, command = patch.dict(os.environ, kept, clear=True), ["command", *map(str, words)]
    with environment_as_given, patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=err)
    return Called(code, out.getvalue(), err.getvalue())
