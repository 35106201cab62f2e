"""What small work costs from the command to its end: `python -m benchmarks.speed.small [start] [label] [tune] [demo]`.

start: `tad --help` and `tad recipes show pser`. label: pseudo-labels of 144 invented videos, in this process
(`--local`) and as it is by default. tune: 40 trials over labels of given proposals, local and on Ray Tune. demo: the
recipe `demo` on its data, local with one thread, by default, and with two training workers. Every command is a process
of its own, as a user starts it; the reference of each part is its first row, in the same run. Six minutes on two idle
cores, of which the demo takes most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tad.data.dataset import Dataset
from tad.evaluation.ground_truth import segments_of
from tad.prepare.split import split_holdout
from tad.prepare.synth import make_dataset

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def seconds(folder: Path, *words: object, **environment: str) -> float:
    """Wall-clock seconds of a `tad` command in a folder."""
    command = [sys.executable, "-m", "tad", *map(str, words)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - began


def data_with_proposals(folder: Path, videos: int, dev: float | None = None) -> tuple[Path, Path]:
    """An invented dataset, and proposals for its training and dev videos: the actions, half again as long."""
    make_dataset(folder / "whole", videos=videos, classes=5, dim=16, seed=0)
    data = Dataset.open(folder / "whole")
    if dev is not None:
        split_holdout(data, dev, None, 0, folder / "data")
        data = Dataset.open(folder / "data")
    truth = segments_of(data, [*data.videos("train"), *data.videos("dev")])
    lengths = truth.end - truth.start
    wide = truth.replace(start=(truth.start - lengths / 4).clip(0), end=truth.end + lengths / 4)
    wide.to_json_file(folder / "proposals.json")
    return data.root, folder / "proposals.json"


def start(folder: Path) -> dict[str, float]:
    """The least of three, as the first has to read the files."""
    commands = {"tad --help": ["--help"], "tad recipes show pser": ["recipes", "show", "pser"]}
    return {name: min(seconds(folder, *words) for _ in range(3)) for name, words in commands.items()}


def label(folder: Path) -> dict[str, float]:
    data, proposals = data_with_proposals(folder, 144)
    words = ("label", "points", "--data", data, "--proposals", proposals)
    ways: dict[str, list[str]] = {"--local": ["--local"], "by default": []}
    return {
        way: seconds(folder, *words, "--out", f"{i}.json", "--store", f"store-{i}", *more)
        for i, (way, more) in enumerate(ways.items())
    }


def tune(folder: Path) -> dict[str, float]:
    data, proposals = data_with_proposals(folder, 60, 0.25)
    sets = ("rounds=1", "proposer.method=file", f"proposer.path={proposals}", "labeler.method=points")
    words = ["tune", "seeds", "--space", "labels", "--data", data, "--objective", "dev-quality", "--trials", 40]
    words += [word for one in sets for word in ("--set", one)]
    ways = {"--local": ["--local"], "on Ray Tune": ["--tracking", "none"]}
    return {
        way: seconds(folder, *words, "--store", f"store-{i}", "--out", f"study-{i}", *more)
        for i, (way, more) in enumerate(ways.items())
    }


def demo(folder: Path) -> dict[str, float]:
    make_dataset(folder / "data", videos=36, classes=5, dim=64, seed=0, difficulty=0.4)
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "--local, one thread": (["--local"], ONE_THREAD),
        "by default": (["--tracking", "none"], {}),
        "--workers 2": (["--workers", "2", "--tracking", "none"], {}),
    }
    return {
        way: seconds(
            folder, "run", "demo", "--data", "data", "--store", f"store-{i}", "--out", f"run-{i}", *more, **environment
        )
        for i, (way, (more, environment)) in enumerate(ways.items())
    }


PARTS: dict[str, Callable[[Path], dict[str, float]]] = {"start": start, "label": label, "tune": tune, "demo": demo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    given = parser.parse_args().parts or list(PARTS)
    for unknown in set(given) - set(PARTS):
        parser.error(f"{unknown}: give {', '.join(PARTS)}")
    print("| | | s | share of the first |\n|---|---|---:|---:|")
    for part in given:
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part](Path(folder))
        first = next(iter(found.values()))
        for way, taken in found.items():
            print(f"| {part} | {way} | {taken:.1f} | {taken / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
