"""Numbers on the command line: bounded, and one thing has the same bounds in every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tad import bounds
from tad.cli import tad
from tad.commands.numbers import FRAMES, OFFSET, ROUNDS, ROWS, VIDEO_RATE, WIDTH
from tad.data.manifest import LEAST_RATE, MOST_RATE, FeatureGrid
from tests.support.commands import every_command

OTHERS = {"synth --dim": "it makes orthogonal columns: at least 2, and few enough for its matrices"}
"""Options whose bounds are not those of their name elsewhere, and why."""
ELSEWHERE = {"--trials": "distributed.tuning.search", "--kfold": "tad.prepare.split, which knows the number of videos"}
"""Options whose bounds are looked at later, and where."""


def numbers() -> Iterator[tuple[str, str, Any]]:
    for name, command in every_command(tad):
        for option in command.params:
            for kind in (click.types.IntParamType, click.types.FloatParamType):
                if isinstance(option.type, kind):
                    yield name, option.opts[0], option.type


def test_every_number_has_bounds():
    found = list(numbers())
    assert len(found) > 30
    for name, option, kind in found:
        if option in ELSEWHERE:
            continue
        assert isinstance(kind, (click.IntRange, click.FloatRange)), f"{name} {option}"
        assert kind.min is not None and kind.max is not None, f"{name} {option}"


def test_one_thing_has_the_same_bounds_everywhere():
    bounds_of: dict[str, set[Any]] = {}
    for name, option, kind in numbers():
        if f"{name} {option}" not in OTHERS and isinstance(kind, (click.IntRange, click.FloatRange)):
            key = {"--train": "--videos", "--test": "--dev"}.get(option, option)
            kind_of = key if name not in ("split", "synth") or key != "--dev" else f"{name} {key}"
            bounds_of.setdefault(kind_of, set()).add((kind.min, kind.max, getattr(kind, "min_open", False)))
    assert {option: found for option, found in bounds_of.items() if len(found) > 1} == {}
    assert len(bounds_of["--seed"]) == 1


@pytest.mark.parametrize("command", ["run", "label", "detect", "tune", "split", "labels", "synth"])
def test_seeds_of_all_commands_are_alike(command):
    option = next(p for p in tad.get_command(click.Context(tad), command).params if p.opts[0] == "--seed")
    for value in (-1, 2**32, "x", "1.5"):
        with pytest.raises(click.BadParameter):
            option.type.convert(value, option, None)
    assert option.type.convert(2**32 - 1, option, None) == 2**32 - 1


def test_the_bounds_are_those_of_the_files():
    for key, kind in {"stride": FRAMES, "window": FRAMES, "offset": OFFSET, "length": ROWS, "dim": WIDTH}.items():
        for end in (kind.min, kind.max):
            FeatureGrid(**{"dim": 1} | {key: end})
        for beyond in (kind.min - 1, kind.max + 1):
            with pytest.raises(ValueError, match=key):
                FeatureGrid(**{"dim": 1} | {key: beyond})
    assert (VIDEO_RATE.min, VIDEO_RATE.max) == (LEAST_RATE, MOST_RATE)
    assert ROUNDS.max == bounds.ROUNDS


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--fps=nan", "'nan' is neither `native` nor a number of 0.0001 to 1000000.0"),
        ("--fps=fast", "'fast' is neither `native` nor a number"),
        ("--fps=-1", "'-1' is neither"),
        ("--stride=nan", "'nan' is not a number"),
        ("--stride=0", "0.0 is not in the range"),
        ("--offset=1e9", "not in the range"),
        ("--dim=0", "0 is not in the range"),
        ("--length=1000000000000", "not in the range"),
    ],
)
def test_numbers_of_a_feature_grid(tmp_path, option, message):
    result = CliRunner().invoke(tad, ["import", "opentad", str(tmp_path), str(tmp_path / "out"), option])
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "out").exists()
