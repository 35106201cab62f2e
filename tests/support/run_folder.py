"""A dataset and a finished run's folder, written through the real record, for reports on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distributed.engine.record import Record
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.evaluator import evaluate
from tad.evaluation.ground_truth import ground_truth

CLASSES = ["HighJump", "LongJump", "PoleVault", "Shotput", "Diving"]
KEYS = {"train": "0a" * 12, "test": "0b" * 12}


def make_dataset(
    folder: Path, train: int = 4, test: int = 3, classes: list[str] = CLASSES, truth: bool = True, seed: int = 0
) -> Dataset:
    """A dataset without features: activations come from the run's folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    manifest = {
        "name": "synthetic",
        "classes": classes,
        "subsets": {"training": "train", "validation": "test"},
        "grid": {"fps": 25.0, "stride": 16, "window": 16, "dim": 8},
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest))
    database, points = {}, ["video_id,label,time"]
    for i in range(train + test):
        video, subset = f"video_{i:04d}", "training" if i < train else "validation"
        seconds = float(rng.uniform(60, 260))
        annotations, at = [], 3.0
        mine = rng.choice(len(classes), size=min(len(classes), int(rng.integers(1, 4))), replace=False)
        while at < seconds - 20:
            length = float(np.exp(rng.normal(1.5, 0.6)))
            name = classes[int(rng.choice(mine))]
            annotations.append({"segment": [at, at + length], "label": name})
            if i < train:
                points.append(
                    f'{video},"{name.replace(chr(34), chr(34) * 2)}",{at + rng.uniform(0.2, 0.8) * length:.3f}'
                )
            at += length + float(rng.exponential(14.0)) + 1.0
        database[video] = {
            "subset": subset,
            "duration": seconds,
            "fps": 30.0,
            "annotations": annotations if truth else [],
        }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "points.csv").write_text("\n".join(points) + "\n")
    return Dataset.open(folder)


def found_near(truth: Segments, data: Dataset, role: str, jitter: float, extra: int, seed: int) -> Segments:
    """Detections around ground truth, and `extra` wrong ones in each video, with lower scores on the whole."""
    rng = np.random.default_rng(seed)
    length = truth.end - truth.start
    start = np.maximum(0, truth.start + rng.normal(0, jitter, len(truth)) * length)
    end = np.maximum(start + 0.2, truth.end + rng.normal(0, jitter, len(truth)) * length)
    good = truth.replace(start=start, end=end, score=rng.beta(5, 3, len(truth)), source="actionformer/detect@1")
    videos = [v for v in data.videos(role) for _ in range(extra)]  # type: ignore[arg-type]
    start = np.array([rng.uniform(0, data.duration(v) - 12) for v in videos])
    bad = (
        Segments.of(
            videos,
            start,
            start + np.exp(rng.normal(1.5, 0.7, len(videos))).clip(0.3, 11),
            list(rng.choice(data.classes, len(videos))),
            rng.beta(2, 6, len(videos)),
        )
        if videos
        else Segments.empty()
    )
    return Segments.concat([good, bad])


def quality(value: float, points: int) -> dict[str, Any]:
    return {
        "mean_tiou": value,
        "share": {"0.3": value + 0.2, "0.5": value, "0.7": value - 0.2},
        "points": points,
        "missing": 3,
    }


def make_run(folder: Path, data: Dataset, rounds: int = 3, select: str = "points", state: str = "finished") -> Path:
    """A run's folder as `tad run` leaves it, with detections that get better round by round."""
    root = folder / "run"
    record = Record(root)
    truth = {role: ground_truth(data, role) for role in ("train", "test")}  # type: ignore[arg-type]
    # Where the dataset has no ground truth, things are put somewhere all the same.
    basis = {role: segments if len(segments) else _anywhere(data, role) for role, segments in truth.items()}
    points = sum(len(data.points(v).time) for v in data.videos("train"))
    document = {
        "recipe_name": "pser",
        "recipe": {"rounds": rounds, "labeler": {"method": "pser", "bag": {"scales": [0.5, 1.0]}}},
        "dataset": {
            "name": data.name,
            "root": str(data.root),
            "classes": data.classes,
            "points": points,
            "videos": {r: len(data.videos(r)) for r in ("train", "test") if data.videos(r)},
        },  # type: ignore[arg-type]
        "seed": 3,
        "select": select,
        "state": state,
        "started": "2025-01-02T03:04:05+00:00",
        "seconds": 4321.0,
        "best_round": max(1, rounds - 1) if state == "finished" else None,
        "versions": {"torch": "2.9.0", "ray": None},
        "tracking": {"uri": "sqlite:///mlflow.db", "run_id": "0123abcd"},
        "command": "tad run pser --data there",
        "scores": {role: _activations(folder / "store" / KEYS[role], data, role, basis[role]).name for role in basis},
    }
    record.save("run.json", document)
    rows = []
    for r in range(rounds + 1):
        (root / f"round-{r}").mkdir(exist_ok=True)
        maps: dict[str, Any] = {}
        for role in ("train", "test"):
            if not data.videos(role):  # type: ignore[arg-type]
                continue
            found = found_near(basis[role], data, role, 0.35 / (r + 1), 8, seed=r)
            name = "proposals" if r == 0 else "detections"
            found.to_parquet(root / f"round-{r}" / f"{name}{'-test' if role == 'test' else ''}.parquet")
            if len(truth[role]):
                maps[role] = evaluate(found, truth[role]).to_json()
        if r:
            labels = found_near(basis["train"], data, "train", 0.3 / r, 0, seed=50 + r)
            labels.to_parquet(root / f"round-{r}" / "labels.parquet")
        for i, name in enumerate(["snippet/train"] if r == 0 else ["pser/train", "actionformer/train"]):
            tags = {"fingerprint": f"{name}{r}", "role": "train", "round": str(r)}
            if name == "actionformer/train":
                record.derived(name, {"width": (64, "about half of 128 <channels>"), "lr": (8e-4, "as narrow")}, tags)
            with record.stage(name, {}, tags, 20, "epoch"):
                for epoch in range(20):
                    record.epoch(name, epoch, {"loss": (2 + i) * float(np.exp(-epoch / 8)) + 0.3 / (r + 1)}, 20)
        measured = len(truth["train"]) > 0
        rows.append(
            {
                "round": r,
                "seconds": 100.0 + r,
                "labels": len(labels) if r else None,
                "quality": quality(0.5 + 0.04 * r, points) if r and measured else None,
                "seed_quality": quality(0.45 + 0.03 * r, points) if r and measured else None,
                "change": 0.7 + 0.05 * r if r > 1 else None,
                "scores": {"points": 0.3 + 0.1 * r, "dev_map": None},
                "train_map": maps.get("train"),
                "test_map": maps.get("test"),
                "selected": state == "finished" and r == max(1, rounds - 1),
            }
        )
        record.save("rounds.json", rows)
    record.warn("3 points lie in no proposal")
    return root


def _anywhere(data: Dataset, role: str) -> Segments:
    videos = data.videos(role)  # type: ignore[arg-type]
    start = [5.0 + i % 7 for i in range(len(videos))]
    return Segments.of(videos, start, [s + 6 for s in start], data.classes[0]) if videos else Segments.empty()


def _activations(folder: Path, data: Dataset, role: str, truth: Segments) -> Path:
    rng = np.random.default_rng(0)
    by_video = truth.by_video()
    for key in ("cas", "background"):
        (folder / key).mkdir(parents=True)
    for video in data.videos(role):  # type: ignore[arg-type]
        length = int(data.duration(video) * 25 / 16)
        cas = rng.uniform(0, 0.15, (length, len(data.classes))).astype(np.float32)
        time_of_row = data.grid(video, length).from_position(np.arange(length, dtype=float))
        mine = by_video.get(video, Segments.empty())
        for (start, end), c in zip(mine.spans, mine.label_index(data.classes), strict=True):
            cas[(time_of_row >= start) & (time_of_row <= end), c] = rng.uniform(0.5, 0.95)
        np.save(folder / "cas" / f"{video}.npy", cas)
        np.save(folder / "background" / f"{video}.npy", (1 - cas.max(axis=1)).astype(np.float32))
    return folder
