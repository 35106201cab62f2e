"""Speed and memory of HR-Pro beside the published way of doing it: `python -m benchmarks.studies.hrpro [--data DIR]`.

On a synthetic dataset of THUMOS14's size, or on a dataset folder with features: a training step of the snippet model,
candidate proposals, ranking, a training epoch of the instance model, inference, and the peak memory of the trainings.
The published way is `benchmarks.references.hrpro_published`, in the same process and on the same inputs; "published
rules" is tad with `faithful: true`, otherwise tad has its defaults. One thread; times are CPU seconds without writing
results. Candidates and reliable proposals by published rules are also compared with the published way's, one by one.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.timing_engine import Direct, cpu
from benchmarks.references import hrpro_published as published
from benchmarks.studies.hrpro_data import thumos_sized
from distributed.engine.loop import Worker, batches, fit
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.hrpro.detector_training import InstanceTrain, InstanceTraining
from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.hrpro.proposer import HrproProposer, HrproTrain, HrproTraining
from tad.methods.snippet.proposer import SnippetProposer, propose
from tad.methods.snippet.training import TrainingConfig, read_features
from tad.stages import Artifact, Context, FitStage
from tests.support.rounds import round_of

CURVE_EPOCHS = 10
"""Of the plain snippet model whose curves all candidates come from."""
EVERY = 5
"""One test video in this many is inferred."""
PRODUCTS = re.compile(r"aten::(mm|addmm|bmm|baddbmm|linear|.*scaled_dot_product.*|.*conv.*)")
MEASURED = """\
For context, not used above: the published code itself, run on a similar machine (one core, CPU seconds; features of
width 256 for THUMOS14's 200 and 210 videos, an early state of other synthetic data): stage 1 step 1.87, forward pass
and candidates of 410 videos 17.3, ranking 2.5, stage 2 epoch 11.6; peak memory of its processes 3.2 GB in stage 1
(evaluation included) and 1.4 GB in stage 2."""


class Table:
    """Prints rows as they come, and counts bars that were missed."""

    def __init__(self) -> None:
        self.missed = 0
        print(f"{'':<54}{'tad':>9}{'published':>11}{'ratio':>8}{'bar':>7}  met")

    def add(self, name: str, ours: float, theirs: float, unit: str, bar: float | None = None) -> None:
        """A row; the bar is the least ratio of theirs to ours."""
        ratio = theirs / ours
        met = "" if bar is None else ("yes" if ratio >= bar else "NO")
        self.missed += met == "NO"
        limit = "" if bar is None else f"{bar:g}x"
        print(f"{name + ', ' + unit:<54}{ours:>9.3g}{theirs:>11.3g}{ratio:>7.1f}x{limit:>7}  {met}", flush=True)


# -- the published way on a dataset ----------------------------------------------------------------------------------


def snippet_seconds(data: Dataset, video: str) -> float:
    grid = data.grid(video)
    return float(grid.from_edge(1.0) - grid.from_edge(0.0))


def labelled(data: Dataset, video: str) -> published.LabelledVideo:
    features, points = read_features(data, video), data.points(video)
    rows = np.zeros((len(features), len(data.classes)), dtype=bool)
    rows[data.grid(video, len(features)).row(points.time), points.label] = True
    return published.LabelledVideo(features, rows)


def published_snippet_training(data: Dataset, groups: list[list[str]], videos: list[str]) -> Any:
    """CPU seconds of one step for each group of videos, and the model; the memory starts from `videos`."""
    torch.manual_seed(0)
    model = published.SnippetNet(data.manifest.grid.dim, len(data.classes))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4)
    published.first_memory(model, [labelled(data, v) for v in videos])

    def steps() -> None:
        for group in groups:
            published.snippet_step(model, optimiser, [labelled(data, v) for v in group])

    return cpu(steps)[0], model


def published_instance_training(data: Dataset, groups: list[list[str]], inputs: Mapping[str, Artifact]) -> Any:
    """CPU seconds of one step for each group of videos, and the model."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = published.InstanceNet(data.manifest.grid.dim)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-5, weight_decay=5e-4)
    found = {name: artifact.segments().by_video() for name, artifact in inputs.items()}

    def spans(names: tuple[str, ...], video: str) -> torch.Tensor:
        parts = [found[name][video].spans for name in names if video in found[name]]
        return torch.from_numpy(np.concatenate(parts) / snippet_seconds(data, video)).float()

    items = {
        v: (spans(("candidates", "negatives"), v), spans(("labels",), v))
        for group in groups
        for v in group
        if v in found["candidates"] and v in found["labels"]
    }

    def steps() -> None:
        for group in groups:
            videos = [(read_features(data, v), *items[v]) for v in group if v in items]
            published.instance_step(model, optimiser, videos, rng)

    return cpu(steps)[0], model


def published_candidates(data: Dataset, scores: Artifact, videos: list[str]) -> dict[str, list[published.Proposal]]:
    found = {}
    for v in videos:
        cas, background, video = (scores.array(key, v) for key in ("cas", "background", "video"))
        found[v] = published.candidate_proposals(cas, background, video, snippet_seconds(data, v))
    return found


def published_ranking(data: Dataset, scores: Artifact, candidates: dict[str, list[published.Proposal]]) -> Any:
    """Reliable proposals of every training video's points, and as many negatives as half its candidates."""
    rng = np.random.default_rng(0)
    reliable, negatives = {}, {}
    for video in data.videos("train"):
        points, background = data.points(video), np.asarray(scores.array("background", video))
        reliable[video] = published.reliable(points.time, points.label, candidates[video])
        rows = np.zeros((len(background), len(data.classes)), dtype=bool)
        rows[data.grid(video, len(background)).row(points.time), points.label] = True
        negatives[video] = published.negatives(background, rows, len(candidates[video]) // 2, rng)
    return reliable, negatives


def shared_groups(data: Dataset, stage: HrproTrain | InstanceTrain, count: int) -> list[list[str]]:
    """The batches of the second epoch of a stage that is fitted to the first `count` training videos."""
    videos = [v for v in data.videos("train") if len(data.points(v).time)][:count]
    size = min(stage.config.batch_size, len(videos))
    return [[videos[i] for i in batch] for batch in batches(len(videos), size, 0, stage.name, 1)]


# -- agreement -------------------------------------------------------------------------------------------------------


def require_same_candidates(data: Dataset, ours: Segments, theirs: dict[str, list[published.Proposal]]) -> int:
    """Number of candidates; SystemExit if the two lists differ in any."""
    found = ours.by_video()
    for video, proposals in theirs.items():
        a = found[video]
        mine = np.column_stack([a.label_index(data.classes), a.spans, a.score])
        other = np.array(proposals)[:, [0, 2, 3, 1]]
        other[:, 1:3] = np.clip(other[:, 1:3], 0, data.duration(video))
        other = other[other[:, 2] > other[:, 1]]
        if mine.shape == other.shape:
            first, second = (rows[np.lexsort(np.round(rows, 4).T[::-1])] for rows in (mine, other))
            if np.allclose(first, second, atol=2e-4):
                continue
        raise SystemExit(f"{video}: {len(mine)} candidates by published rules differ from the published {len(other)}")
    return len(ours)


def differing(data: Dataset, ours: Segments, theirs: dict[str, list[published.Proposal | None]]) -> tuple[int, int]:
    """Points whose reliable proposal is not the published one, and points."""
    found, wrong, count = ours.by_video(), 0, 0
    for video, chosen in theirs.items():
        points = data.points(video)
        segments = found.get(video, Segments.empty())
        seeds = zip(segments.point, segments.label_index(data.classes), segments.spans, strict=True)
        mine = {(round(float(time), 6), int(label)): span for time, label, span in seeds}
        for time_s, label, proposal in zip(points.time, points.label, chosen, strict=True):
            span = mine.get((round(float(time_s), 6), int(label)))
            count += 1
            if proposal is None or span is None:
                wrong += (proposal is None) != (span is None)
            else:
                wrong += not np.allclose(span, np.clip(proposal[2:], 0, data.duration(video)), atol=1e-4)
    return wrong, count


# -- memory and matrix products --------------------------------------------------------------------------------------


def peak(side: str, data: Dataset, inputs: Mapping[str, Artifact]) -> float:
    """Largest resident MB of this process once `side` has trained: the heaviest step of stage 1, or a stage 2 epoch."""
    torch.set_num_threads(1)
    snippet = HrproTrain(HrproTraining(epochs=2, batch_size=16))
    instance = InstanceTrain(InstanceTraining(epochs=1, batch_size=10))
    heavy = max(shared_groups(data, snippet, 10**6), key=lambda g: sum(len(data.features(v)) ** 2 for v in g))
    if side == "tad 1":
        fit(snippet, Context(data, {}, heavy, 0), Worker(), None, lambda *_: None)
    elif side == "published 1":
        published_snippet_training(data, [heavy, heavy], heavy)
    elif side == "tad 2":
        fit(instance, Context(data, inputs, data.videos("train"), 0), Worker(), None, lambda *_: None)
    elif side == "published 2":
        published_instance_training(data, shared_groups(data, instance, 10**6), inputs)
    # Not ru_maxrss: a process takes that over from the one that started it, which is larger here.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def measured_peak(side: str, data: Dataset, inputs: Mapping[str, Artifact]) -> float:
    """`peak` in a fresh process."""
    paths = json.dumps({name: str(artifact.path) for name, artifact in inputs.items()})
    command = [
        sys.executable,
        "-m",
        "benchmarks.studies.hrpro",
        "--data",
        str(data.root),
        "--peak",
        side,
        "--inputs",
        paths,
    ]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def matrix_share(stage: FitStage, context: Context) -> float:
    """Share of matrix products, attention and convolutions in the operators' own CPU time in the second epoch."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def report(state: Any, *_: Any) -> None:
        if len(state["history"]) == 1:
            profiler.start()

    fit(stage, context, Worker(), None, report)
    profiler.stop()
    times = [(event.key, event.self_cpu_time_total) for event in profiler.key_averages()]
    return float(sum(t for key, t in times if PRODUCTS.fullmatch(key)) / sum(t for _, t in times))


# -- table -----------------------------------------------------------------------------------------------------------


def benchmark(data: Dataset, folder: Path) -> int:
    """Prints all rows; the number of bars missed."""
    train, test = data.videos("train"), data.videos("test")
    lengths = np.array([len(data.features(v)) for v in train])
    print(
        f"{data.name}: {len(train)} training, {len(test)} test videos, {lengths.mean():.0f} snippets (most "
        f"{lengths.max()}), width {data.manifest.grid.dim}; one thread, CPU time\n"
    )
    table, engine = Table(), Direct(data, folder)

    stages = {}
    models = {}
    faithful = HrproProposer(faithful=True)
    for name, training in (("", HrproTraining()), (", published rules", faithful.training)):
        stages[name] = HrproTrain(training.model_copy(update={"epochs": 2, "batch_size": 16}))
        models[name] = engine.fit(stages[name])
        groups = shared_groups(data, stages[name], 10**6)
        if not name:
            seconds, their_snippet = published_snippet_training(data, groups, [v for g in groups for v in g])
        ours = engine.seconds["hrpro/train"] / len(groups)
        table.add(f"stage 1 step, 16 videos{name}", ours, seconds / len(groups), "s", None if name else 1.5)
    snippet_share = matrix_share(stages[""], Context(data, {}, groups[0], 0))

    plain = SnippetProposer(training=TrainingConfig(epochs=CURVE_EPOCHS))
    curves = plain.train(round_of(engine))
    scores: dict[Role, Artifact] = {r: plain.score(round_of(engine, r), curves) for r in ("train", "test")}
    published_candidates(data, scores["train"], train[:1])
    theirs = {role: cpu(partial(published_candidates, data, scores[role], data.videos(role))) for role in scores}
    found: dict[str, dict[Role, Artifact]] = {}
    their_candidates = sum(seconds for seconds, _ in theirs.values())
    for name, proposer in ((", published rules", faithful), ("", HrproProposer())):
        ours, found[name] = 0.0, {}
        for role in scores:
            found[name][role] = propose(round_of(engine, role), scores[role], proposer.candidates, suppressed=False)
            ours += engine.seconds["snippet/propose"]
        table.add(f"candidates, {len(train) + len(test)} videos{name}", ours, their_candidates, "s")
        if name:
            our_candidates = ours
            number = {r: require_same_candidates(data, found[name][r].segments(), theirs[r][1]) for r in scores}
    candidates = found[", published rules"]

    inputs = {"candidates": candidates["train"]}
    detector = HrproInstanceDetector(training=InstanceTraining(epochs=2, batch_size=10))
    their_ranking, (reliable, _) = cpu(lambda: published_ranking(data, scores["train"], theirs["train"][1]))
    now = round_of(engine, candidates=candidates["train"], scores=scores["train"])
    same = HrproLabeler(faithful=True).label(now)
    wrong, points = differing(data, same.segments.segments(), reliable)
    labels = HrproLabeler().label(now)
    inputs["labels"] = labels.segments
    instance = detector.train(now, labels)
    inputs["negatives"] = Artifact("negatives", next(folder.glob("*-negatives")))
    our_ranking = engine.seconds["hrpro/rank"] + engine.seconds["hrpro-instance/negatives"]
    table.add(f"ranking, {len(train)} videos", our_ranking, their_ranking, "s")
    table.add(
        "candidates (published rules) and ranking",
        our_candidates + our_ranking,
        their_candidates + their_ranking,
        "s",
        10,
    )

    stage = InstanceTrain(detector.training)
    groups = shared_groups(data, stage, 10**6)
    seconds, their_instance = published_instance_training(data, groups, inputs)
    table.add(f"stage 2 epoch, {len(train)} videos", engine.seconds[stage.name], seconds, "s", 1.5)
    instance_share = matrix_share(stage, Context(data, inputs, groups[0], 0))

    inference(
        table,
        Direct(data, folder / "inference", EVERY),
        models,
        instance,
        scores["test"],
        their_snippet.eval(),
        their_instance.eval(),
    )
    base = measured_peak("nothing", data, inputs)
    for number_of_stage, what in ((1, "step with the longest videos"), (2, "epoch")):
        ours, other = (measured_peak(f"{side} {number_of_stage}", data, inputs) for side in ("tad", "published"))
        table.add(f"peak memory, stage {number_of_stage} {what}", ours, other, "MB", 1)

    print(f"\npeak memory of the imports alone: {base:.0f} MB")
    print(
        f"matrix products, attention and convolutions: {snippet_share:.0%} of the operators' time in a stage 1 step, "
        f"{instance_share:.0%} in a stage 2 step"
    )
    print(
        f"candidates by published rules: {number['train'] / len(train):.0f} and {number['test'] / len(test):.0f} a "
        f"video, all as published; reliable proposals: {points - wrong} of {points} as published"
    )
    print("\n" + MEASURED)
    return table.missed


def inference(
    table: Table,
    engine: Direct,
    models: dict[str, Artifact],
    instance: Artifact,
    scores: Artifact,
    snippet: Any,
    net: Any,
) -> None:
    """Both stages on some test videos; candidates come from the shared curves, whatever the trained models say."""
    data = engine.data
    videos = data.videos("test")[:: engine.every]

    def run() -> None:
        for video in videos:
            features, length = read_features(data, video), snippet_seconds(data, video)
            published.curves(snippet, features)
            found = published_candidates(data, scores, [video])[video]
            published.detections(net, features, found, length)

    theirs, _ = cpu(run)
    for name, faithful in (("", False), (", published rules", True)):
        proposer, detector = HrproProposer(faithful=faithful), HrproInstanceDetector(faithful=faithful)
        test = round_of(engine, "test")
        proposer.score(test, models[name])
        candidates = propose(test, scores, proposer.candidates, suppressed=False)
        detector.detect(round_of(engine, "test", candidates=candidates, scores=scores), instance)
        ours = sum(engine.seconds[stage] for stage in ("hrpro/score", "snippet/propose", "hrpro-instance/detect"))
        table.add(f"inference, a video{name}", 1e3 * ours / len(videos), 1e3 * theirs / len(videos), "ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a dataset folder with features (default: an invented one)")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--inputs", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        inputs = {name: Artifact(name, Path(path)) for name, path in json.loads(options.inputs).items()}
        print(peak(options.peak, Dataset.open(options.data), inputs))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = Dataset.open(options.data) if options.data else thumos_sized(work / "data")
        missed = benchmark(data, work / "artifacts")
    if missed:
        raise SystemExit(f"{missed} bar(s) missed")


if __name__ == "__main__":
    main()
