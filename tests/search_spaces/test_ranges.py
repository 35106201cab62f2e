"""Ranges of search spaces: bounds, steps and lists, and the way back from a value to what is suggested."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search_spaces.ranges import encode, ends, suggest
from search_spaces.space import Choice, Float, Integer, Parameter, Scales, Shifts, Steps
from tad.errors import ConfigError

optuna.logging.set_verbosity(optuna.logging.ERROR)


BOUND = st.decimals(-100, 100, places=4).map(float)
POSITIVE = st.decimals("0.0001", 100, places=4).map(float)


@st.composite
def floats(draw):
    log = draw(st.booleans())
    low, high = sorted(draw(st.lists(POSITIVE if log else BOUND, min_size=2, max_size=2, unique=True)))
    return Float(low, high, log)


@st.composite
def integers(draw):
    low, log = draw(st.integers(1, 50)), draw(st.booleans())
    step = 1 if log else draw(st.integers(1, 5))
    return Integer(low, low + step * draw(st.integers(1, 50)), log, step)


def roundtrip(range, value):
    return suggest(range, FixedTrial(dict(encode(range, "k", value))), "k")


@given(floats(), st.data())
def test_numbers_come_back_and_bounds_belong_to_the_range(range, data):
    for value in (range.low, range.high, data.draw(st.floats(range.low, range.high))):
        assert roundtrip(range, value) == value
    for value in (range.low - 1e-6, range.high + 1e-6, True, "1", None, float("nan")):
        with pytest.raises(ValueError):
            encode(range, "k", value)


@given(integers(), st.data())
def test_whole_numbers_come_back_and_steps_are_kept(range, data):
    inside = set(np.arange(range.low, range.high + 1, range.step).tolist())
    for value in (range.low, range.high, data.draw(st.sampled_from(sorted(inside)))):
        found = roundtrip(range, value)
        assert found == value and type(found) is int
    outside = data.draw(st.integers(range.low - 5, range.high + 5).filter(lambda v: v not in inside))
    for value in (outside, float(range.low), True):
        with pytest.raises(ValueError):
            encode(range, "k", value)


@given(st.lists(st.one_of(st.none(), st.integers(2, 9), st.text(max_size=3)), min_size=2, max_size=5, unique=True))
def test_choices_come_back(values):
    for value in values:
        assert roundtrip(Choice(*values), value) == value
    with pytest.raises(ValueError):
        encode(Choice(*values), "k", 1.5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_lists_come_back_and_have_their_shape(data):
    number = st.decimals(0, 1, places=3).map(float)
    a, b, c, d = sorted(data.draw(st.lists(number, min_size=4, max_size=4, unique=True)))
    count = Integer(2, data.draw(st.integers(3, 30)))
    for range in (
        Steps(Float(a, b), Float(c, d), count),
        Scales(Float(1 + b, 1 + c, log=True), count),
        Shifts(Float(b, c), count),
    ):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=data.draw(st.integers(0, 99))))
        for values in (suggest(range, study.ask(), "k"), *ends(range)):
            assert roundtrip(range, values) == values
            if isinstance(range, Steps):
                assert a <= values[0] <= b and c <= values[-1] <= d and values == sorted(values)
                gaps = [y - x for x, y in pairwise(values)]
                assert max(gaps) - min(gaps) < 3e-4
            elif isinstance(range, Scales):
                assert len(values) % 2 and values == sorted(values) and values[len(values) // 2] == 1
                assert all(x * y == pytest.approx(1, abs=2e-4) for x, y in zip(values, values[::-1], strict=True))
            else:
                assert (
                    values[0] == 0 and sum(values) == pytest.approx(0, abs=1e-9) and max(values) <= round(c, 4) + 1e-9
                )


@pytest.mark.parametrize("log", [False, True])
def test_samplers_stay_inside(log):
    found = {"f": [], "i": []}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        trial = study.ask()
        found["f"].append(suggest(Float(1e-3, 2.0, log), trial, "f"))
        found["i"].append(suggest(Integer(1, 4, log), trial, "i"))
    assert min(found["f"]) >= 1e-3 and max(found["f"]) <= 2.0
    assert set(found["i"]) == {1, 2, 3, 4}
    assert (sorted(found["f"])[100] < 0.2) == log


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(2.0, 1.0),
        lambda: Float(0.0, 1.0, log=True),
        lambda: Float(0.0, float("inf")),
        lambda: Integer(1, 4, step=2),
        lambda: Float(float("nan"), 1.0),
        lambda: Float(0.0, 1e300),
        lambda: Float("0", 1.0),
        lambda: Integer(1, 10**400),
        lambda: Integer(1.5, 3),
        lambda: Choice("one"),
        lambda: Choice(0.1, float("nan")),
        lambda: Choice(0.1, float("inf")),
        lambda: Steps(Float(0, 0.3), Float(0.4, 1), Integer(2, 10**9)),
        lambda: Scales(Float(1.5, 2), Integer(1, 10**9)),
        lambda: Shifts(Float(0.1, 1), Integer(1, 10**9)),
        lambda: Parameter(3, Integer(1, 3), "why", "round"),
        lambda: Parameter("rounds", (1, 3), "why", "round"),
        lambda: Choice([1], [2]),
        lambda: Steps(Float(0, 0.5), Float(0.4, 1), Integer(2, 3)),
        lambda: Scales(Float(0.5, 2), Integer(1, 2)),
        lambda: Shifts(Float(0.0, 1), Integer(1, 2)),
        lambda: Parameter("rounds", Integer(1, 3), "why", "never"),
        lambda: Parameter("rounds", Integer(1, 3), "why", "round", stand_in=4),
        lambda: Parameter("rounds", Integer(1, 3), "why", "round", when=("rounds",)),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(make):
    with pytest.raises(ConfigError):
        make()
