"""Finds search spaces by name: the families of this package, and files of the user's own.

A user's file is Python code and is run: it can do whatever the user can, also never end. Name only trusted ones.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

from search_spaces.families import FAMILIES
from search_spaces.families import parameters as family
from search_spaces.space import Parameter, Space
from tad.errors import ConfigError, DataError, listing
from tad.files import regular

MOST_TEXT = 300
"""Characters of an error of a user's file."""


def families() -> dict[str, str]:
    """The families that come with the package: name and what it is for."""
    return {name: about for name, (about, _) in sorted(FAMILIES.items())}


def load(names: str) -> Space:
    """The parameters of several spaces together.

    Args:
        names: separated by commas: families, or paths of Python files that have a list SPACE of parameters. A name may
            be followed by a colon and a stage, which leaves out what changes an earlier stage: "perturbation:labels"
            trains neither proposer nor heads again.

    Raises:
        ConfigError: unknown names (with the closest family), files that cannot be used; all of them are listed.
    """
    parameters: list[Parameter] = []
    problems: list[str] = []
    for name in [n.strip() for n in names.split(",") if n.strip()]:
        try:
            parameters += _one(name).parameters
        except ConfigError as error:
            problems.append(str(error))
    if not parameters and not problems:
        problems.append(f"no space named; known: {', '.join(families())}, or the path of a .py file")
    if problems:
        raise ConfigError("search space: " + listing(problems))
    return Space(tuple(parameters))


def _one(name: str) -> Space:
    known = families()
    place, _, stage = name.rpartition(":")
    if not place or stage.endswith(".py"):  # a colon may be part of a path
        place, stage = name, ""
    if place in known:
        found: object = family(place)
    elif place.endswith(".py"):
        found = vars(_file(Path(place))).get("SPACE")
    else:
        close = difflib.get_close_matches(place, list(known), 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ConfigError(f"no space {place!r}{hint} Known: {', '.join(known)}, or the path of a .py file")
    if not isinstance(found, list) or not found or not all(isinstance(p, Parameter) for p in found):
        raise ConfigError(f"{place}: needs a list SPACE of search_spaces.space.Parameter")
    space = Space(tuple(found))
    return space.since(stage) if stage else space


def _file(path: Path) -> ModuleType:
    if not os.path.exists(path):
        raise ConfigError(f"{path}: no such file")
    try:
        regular(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    spec = importlib.util.spec_from_file_location(f"search_space_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no part of a command's output
            spec.loader.exec_module(module)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except KeyboardInterrupt:
        raise  # it takes long, and the user does not wait
    except BaseException as error:  # whatever is wrong with the user's file, or that it ends the process
        name = "it calls sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be imported: {name}{': ' if text else ''}{text[:MOST_TEXT]}") from None
    return module
