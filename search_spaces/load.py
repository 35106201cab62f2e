"""Finds search spaces by name: the families of this package, and files of the user's own."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from search_spaces.space import Parameter, Space
from tad.errors import ConfigError, listing

MACHINERY = {"__init__", "load", "ranges", "space"}
"""Files of the package that are not families."""


def families() -> dict[str, str]:
    """The families that come with the package: name and what it is for."""
    files = sorted(f for f in Path(__file__).parent.glob("*.py") if f.stem not in MACHINERY)
    return {f.stem: (ast.get_docstring(ast.parse(f.read_text())) or "").partition("\n")[0] for f in files}


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
        module = importlib.import_module(f"search_spaces.{place}")
    elif place.endswith(".py"):
        module = _file(Path(place))
    else:
        close = difflib.get_close_matches(place, list(known), 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ConfigError(f"no space {place!r}{hint} Known: {', '.join(known)}, or the path of a .py file")
    found = getattr(module, "SPACE", None)
    if not isinstance(found, list) or not found or not all(isinstance(p, Parameter) for p in found):
        raise ConfigError(f"{place}: needs a list SPACE of search_spaces.space.Parameter")
    space = Space(tuple(found))
    return space.since(stage) if stage else space


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"search_space_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # whatever is wrong with the user's file
        raise ConfigError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module
