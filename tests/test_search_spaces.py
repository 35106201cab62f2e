"""Every point of a search space is a valid recipe; the published grid lies inside."""

from __future__ import annotations

import optuna
import pytest

from search_spaces import pser
from tad.config import load_recipe


def test_sampled_points_are_valid_recipes_and_seeded():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for _ in range(2):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found.append([pser.labels(study.ask()) for _ in range(20)])
    assert found[0] == found[1]
    for overrides in found[0]:
        bag = load_recipe("pser", overrides).labeler.bag
        assert 1.0 in bag.scales and 0.0 in bag.shifts
        assert bag.scales[0] * bag.scales[-1] == pytest.approx(1, abs=1e-3)
        assert sum(bag.shifts) == pytest.approx(0, abs=1e-9)
