"""Drivers killed at random moments, until the run or the search ends: `python -m tests.rough.kills local|ray|search N`.

Prints how many kills were survived and whether the results are those of an uninterrupted run, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = ["run", "tests/support/tiny.yaml", "--data", "{data}", "--store", "{place}/store", "--out", "{place}/run"]
COMMANDS = {
    "local": [*RUN, "--local"],
    "ray": [*RUN, "--workers", "2", "--tracking", "none"],
    "search": [
        "tune", "tests/support/tiny.yaml", "--data", "{data}", "--store", "{place}/store", "--out", "{place}/run", "--local",
        "--space", "thresholds", "--objective", "points", "--trials", "6", "--set", "rounds=1",
    ],
}  # fmt: skip
RESULTS = ("*.parquet", "rounds.json")


def started(command: list[str], data: Path, place: Path) -> subprocess.Popen[bytes]:
    arguments = [a.format(data=data, place=place) for a in command]
    with (place / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tad", *arguments], stdout=output, stderr=output, start_new_session=True
        )


def results(place: Path, kind: str) -> dict[str, str]:
    """What must not depend on kills: a run's files; a search's trials; the store's artifacts."""
    found = {}
    if kind == "search":
        from distributed.tuning.study import open_storage

        database = next((place / "run").rglob("study.db"))
        storage = open_storage(f"sqlite:///{database}")
        (study,) = storage.get_all_studies()
        trials = [t for t in storage.get_all_trials(study._study_id) if t.state.name == "COMPLETE"]
        ended = sorted(json.dumps([sorted(t.params.items()), t.values]) for t in trials)
        return {"complete": str(len(ended)), "trials": hashlib.sha256("\n".join(ended).encode()).hexdigest()}
    for pattern in RESULTS:
        for path in (place / "run").rglob(pattern):
            content = path.read_bytes()
            if path.name == "rounds.json":
                rows = json.loads(content)
                for row in rows:
                    row.pop("seconds", None)
                content = json.dumps(rows, sort_keys=True).encode()
            found[str(path.relative_to(place))] = hashlib.sha256(content).hexdigest()
    keys = [p.name for p in (place / "store").iterdir() if p.is_dir() and (p / "meta.json").is_file()]
    for key in keys:
        for path in sorted((place / "store" / key).rglob("*.parquet")):
            found[f"store/{key}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["keys"] = " ".join(sorted(keys))
    return found


def main(kind: str, wanted: int) -> int:
    from tad.prepare.synth import make_dataset

    rng = random.Random(int(os.environ.get("KILL_SEED", "0")))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        make_dataset(data, videos=16 if kind == "ray" else 8, classes=3, dim=16, seed=0)  # a batch for two workers
        plain = Path(folder, "plain")
        plain.mkdir()
        start = time.perf_counter()
        status = started(COMMANDS[kind], data, plain).wait()
        whole = time.perf_counter() - start
        assert status == 0, (plain / "output.txt").read_text()[-2000:]
        right = results(plain, kind)
        kills, series, bad = 0, 0, 0
        while kills < wanted:
            series += 1
            place = Path(folder, f"series-{series}")
            place.mkdir()
            own = 0
            while True:
                driver = started(COMMANDS[kind], data, place)
                limit = rng.uniform(0.2, 1.0) * whole if own < 8 and kills < wanted else None
                try:
                    status = driver.wait(timeout=limit)
                    break
                except subprocess.TimeoutExpired:
                    os.kill(driver.pid, signal.SIGKILL)
                    driver.wait()
                    kills, own = kills + 1, own + 1
            text = (place / "output.txt").read_text(errors="replace")
            found = results(place, kind) if status == 0 else {}
            differ = sorted(k for k in right.keys() | found.keys() if right.get(k) != found.get(k))
            junk = [
                p.name
                for p in (place / "store").iterdir()
                if (p.name[0] == "." and p.name != ".runs") or "partial" in p.name
            ]
            if status != 0 or differ or junk or "Traceback" in text:
                bad += 1
                print(f"series {series}: status {status}, differ {differ[:5]}, junk {junk[:5]}\n{text[-1500:]}")
            print(f"series {series}: {own} kills, {'same' if not differ else 'DIFFERENT'}", flush=True)
        print(
            f"{kind}: {kills} kills in {series} series, {series - bad} series with the same bytes; plain {whole:.0f} s"
        )
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
