"""Recorded trials, replayed: a scheduler stops what it would have stopped, and its seconds are counted so far."""

from __future__ import annotations

import pytest

from benchmarks.studies.real.pruning import Recorded, measured, orders, read, replayed
from distributed.run.selftrain import LOOKS
from distributed.tuning.search import pruner
from tad.files import write_json

STEPS = list(range(1, LOOKS + 1))


def trial(value, seconds=5.0):
    """A training whose score rises evenly."""
    return Recorded(STEPS, [value * step / LOOKS for step in STEPS], [seconds * step / LOOKS for step in STEPS])


TRIALS = [trial(0.5), trial(0.1), trial(0.9), trial(0.2)]


def test_without_a_scheduler_all_come_to_their_end():
    study = replayed(TRIALS, [0, 1, 2, 3], pruner("none", LOOKS))
    assert study.ended == 4 and study.seconds == [0, 5, 10, 15, 20] and study.best == [0, 0.5, 0.5, 0.9, 0.9]
    assert study.until(0.9) == 15 and study.until(0.95) is None


def test_a_scheduler_stops_what_is_behind_and_saves_the_rest_of_it():
    study = replayed(TRIALS, [0, 1, 2, 3], pruner("median", LOOKS))
    assert study.ended == 2 and study.seconds == pytest.approx([0, 5, 6, 11, 12])
    assert study.best[-1] == 0.9 and study.until(0.9) == pytest.approx(11)


def test_the_recipe_comes_first_in_every_order():
    every = orders(5, 4)
    assert (
        all(order[0] == 0 and sorted(order) == [0, 1, 2, 3, 4] for order in every) and len(set(map(tuple, every))) > 1
    )


def test_the_table_is_of_what_was_recorded(tmp_path):
    with pytest.raises(SystemExit, match="train them with --trials"):
        read(tmp_path)
    for number, one in enumerate(TRIALS):
        write_json(tmp_path / "pruning" / f"{number:04d}.json", one._asdict())
    assert read(tmp_path) == TRIALS
    lines = measured(read(tmp_path), 2, 0.001).splitlines()
    none, median = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("none", "median"))
    assert "| 4.0 |" in none and "| 1.00 |" in none and "| 2.0 |" in median
