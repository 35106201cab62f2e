"""The training tasks of APL's detectors, opened on plain data."""

from __future__ import annotations

from pathlib import Path

import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.apl.actionformer_training import AplTask
from tad.methods.apl.bmn import AplBmnTask
from tad.methods.apl.options import AplBmnTraining, AplTraining
from tad.stages import Context
from tests.support.bmn import SMALL as SMALL_BMN
from tests.support.plain import SMALL, inputs_of


def task(data: Dataset, labels: Segments, folder: Path, ignored: Segments | None = None, **options: object) -> AplTask:
    context = Context(data, inputs_of(labels, ignored, folder), data.videos("train"), seed=0)
    torch.manual_seed(0)
    return AplTask(AplTraining(**(SMALL | options)), context)


def bmn_task(
    data: Dataset, labels: Segments, folder: Path, ignored: Segments | None = None, **options: object
) -> AplBmnTask:
    context = Context(data, inputs_of(labels, ignored, folder), data.videos("train"), seed=0)
    torch.manual_seed(0)
    return AplBmnTask(AplBmnTraining(**(SMALL_BMN | options)), context)
