"""A training step does not wait for a GPU where it need not: what would is seen among its operations, on any device."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distributed.engine.loop import _Losses
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.apl.actionformer import AplActionFormerDetector
from tad.methods.bmn.detector import BmnDetector
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.pser.seed_labeler import SeedLabeler
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.trainings import proposed_round

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "repeat_interleave"}
"""Operations whose result, or its size, must be known before the next one can be given to a GPU."""
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index"}
"""These are, too, if they are given a mask."""


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function._schema.name.split("::")[-1]
        masked = name in INDEXING and any(i is not None and i.dtype == torch.bool for i in arguments[1])
        if name in WAITING or masked:
            self.seen[name] += 1
        return function(*arguments, **(named or {}))


@pytest.fixture
def waits(monkeypatch):
    """Of all losses, by operation."""
    seen = Counter()

    @contextmanager
    def watched(self):
        with Watch() as watch:
            yield
        seen["steps"] += 1
        seen.update(watch.seen)

    monkeypatch.setattr(_Losses, "explaining", watched)
    return seen


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waits")
    return TinyEngine(tiny_dataset(folder / "data", videos=6, classes=2, dim=8), 0, folder)


@pytest.fixture(scope="module")
def proposed(engine):
    return proposed_round(engine)


@pytest.mark.parametrize(
    ("detector", "each_step"),
    [
        (ActionFormerDetector(training={"epochs": 2}), {}),
        (AplActionFormerDetector(training={"epochs": 2, "quality": {"enabled": True}}), {}),
        (BmnDetector(training={"epochs": 2, "length": 32, "samples": 8}), {}),
        # Its background rows are found on the CPU, as `mine` says, which these operations do not show.
        (PotlocDetector(training={"epochs": 2}), {}),
        (HrproInstanceDetector(training={"epochs": 2}), {"repeat_interleave": 1}),  # the samples of its proposals
    ],
    ids=lambda value: getattr(value, "method", ""),
)
def test_operations_of_a_step_that_wait(proposed, waits, detector, each_step):
    detector.train(proposed, SeedLabeler().label(proposed))
    steps = waits.pop("steps")
    assert steps >= 2
    assert waits == {name: steps * count for name, count in each_step.items()}


def test_the_watch_sees_them():
    x = torch.rand(4)
    with Watch() as watch:
        int(x.sum())
        x[x > 0.5]
        x.nonzero()
        x[torch.tensor([0, 1])]
    assert watch.seen == {"_local_scalar_dense": 1, "index": 1, "nonzero": 1}
