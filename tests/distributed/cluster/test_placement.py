"""The plan of a run, and that Ray places the workers as it says."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from distributed.cluster.placement import Node, layout, plan
from distributed.engine.engine import Resources
from tad.errors import RunError
from tad.stages import Context
from tests.support.nodes import nodes
from tests.support.tiny import tiny_dataset
from tests.support.toy import ToyFit, ToyTask

TWO = [Node("head", 4, 0.0), Node("gpu1", 8, 2.0), Node("gpu2", 8, 1.0)]


def test_every_gpu_gets_a_training_and_a_mapping_worker_unless_asked_otherwise():
    assert plan(TWO, None, None) == Resources(True, 3, 1.0, 3)
    assert plan(TWO, None, 0.5) == Resources(True, 6, 0.5, 6)
    assert plan(TWO, None, 0.0) == Resources(True, 1, 0.0, 20)
    assert plan(TWO, None, None, "pack") == Resources(True, 2, 1.0, 3, "pack")
    assert plan([Node("here", 8, 0.0)], None, None) == Resources(True, 1, 0.0, 8)


def test_the_plan_is_told_node_by_node():
    assert plan(TWO, 3, None).plan == (
        "Ray: 3 nodes, 3 training workers with 1 GPU each, 3 mapping workers",
        "  head (4 CPUs): nothing",
        "  gpu1 (8 CPUs, 2 GPUs): 2 training workers, 2 mapping workers",
        "  gpu2 (8 CPUs, 1 GPU): 1 training worker, 1 mapping worker",
    )
    assert plan([Node("here", 2, 0.0)], None, None).plan == ("Ray: 1 node, trains in this process, 2 mapping workers",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 1.0), r"4 workers with 1 GPUs each need 4 GPUs; the cluster has 3 GPUs: head \(4 CPUs\), gpu1"),
        ((1, 3.0), "do not fit: a worker's GPUs must be on one node, which leaves room for 0"),
        ((3, 0.8, "pack"), r"do not fit on one node \(--placement pack\): there is room for 2 at most"),
        ((4, 0.6), "do not fit: a worker's GPUs must be on one node"),  # two shares of 0.6 do not fit on one GPU
        ((21, 0.0), "21 workers need 21 CPUs; the cluster has 20 CPUs"),
        ((9, 0.0, "pack"), "room for 8 at most"),
    ],
)
def test_what_can_never_run_is_refused(arguments, message):
    with pytest.raises(RunError, match=message):
        plan(TWO, *arguments)


def test_layouts():
    assert layout([4, 8, 8], 9, None) == [0, 8, 1]
    assert layout([4, 8, 8], 3, "pack") == [0, 3, 0]
    assert layout([1, 8, 8], 7, "spread") == [1, 3, 3]


@dataclass(frozen=True)
class WhereFit(ToyFit):
    """Leaves the node of each worker in the folder `flag`."""

    def open(self, context: Context) -> ToyTask:
        import ray

        (Path(self.config.flag) / uuid.uuid4().hex).write_text(ray.get_runtime_context().get_node_id())
        return ToyTask(self.config.model_copy(update={"flag": ""}), context)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_places_the_workers_as_planned(tmp_path):
    """Two workers on nodes with 1, 2 and 2 CPUs: pack on one of the large ones, spread over two."""
    data = tiny_dataset(tmp_path / "data", videos=4).root
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from distributed.cluster.connect import cluster\nfrom tad.data.dataset import Dataset\n"
        "from tests.distributed.cluster.test_placement import WhereFit\nfrom tests.support.tiny import TinyEngine\n"
        "from tests.support.toy import ToyConfig\n"
        "folder, data = Path(sys.argv[1]), Dataset.open(sys.argv[2])\n"
        "for placement in ('pack', 'spread'):\n"
        "    (folder / placement).mkdir()\n"
        "    with cluster(2, None, placement) as resources:\n"
        "        engine = TinyEngine(data, 0, folder / f'run-{placement}', resources)\n"
        "        engine.fit(WhereFit(ToyConfig(epochs=1, batch_size=2, flag=str(folder / placement))))\n"
    )
    with nodes(1, 2, 2) as cluster:
        result = cluster.run("-c", script, tmp_path, data)
    assert result.returncode == 0, result.stderr[-3000:]
    for placement, count in (("pack", 1), ("spread", 2)):
        found = [file.read_text() for file in (tmp_path / placement).iterdir()]
        assert len(found) == 2 and len(set(found)) == count
