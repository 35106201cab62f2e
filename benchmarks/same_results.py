"""Whether a change of structure changes results: every recipe on a tiny dataset, a digest of each artifact's content.

    python -m benchmarks.same_results before.json      # at the commit before
    python -m benchmarks.same_results after.json --against before.json

Numbers differ between machines, so the digests are not kept; write both files on one machine. Fingerprints are compared
too: where they differ, caches of earlier versions are not found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tad.cli import tad
from tad.data.artifact import Artifact

SHORT = {"epochs": 2, "steps": 4, "memory_epochs": 2, "label_epochs": [1], "length": 32, "samples": 8}
"""Options of schedules, wherever a recipe has them."""
WEAK = {"gaufuse-anet", "gaufuse-released", "gaufuse-small", "gaufuse", "pser-weak"}
FEW = {"apl-anet", "apl-bmn-anet", "apl-bmn", "apl-epic", "apl-small", "apl", "snippet-apl", "actionformer-full"}
MIXED = {"mixed", "mixed-apl"}
EXTRA = {
    "potloc": ["rounds=2", "select=dev-quality"],
    "pser": ["select=dev-quality"],
    "points": ["select=dev-quality", "labeler.method=points", "rounds=2"],
    "bmn-apl-parts": ["labeler.ignore=true", "detector.training.quality=true", "detector.pretrain.enabled=true"],
    "actionformer-apl-parts": ["labeler.ignore=true", "detector.training.contrast_weight=0.1"],
}


def data_of(name: str, folder: Path) -> Path:
    """The tiny dataset with the labels that a recipe is for."""
    few = name in FEW or name.endswith("apl-parts")
    return folder / ("classes" if name in WEAK else "few" if few else "mixed" if name in MIXED else "points")


def make_data(folder: Path) -> None:
    def run(*words: object) -> None:
        tad.main([str(word) for word in words], standalone_mode=False)

    run("synth", folder / "whole", *["--videos", 11, "--test", 3, "--classes", 3, "--dim", 16, "--finer", 2])
    run("split", folder / "whole", "--dev", 0.3, "--out", folder / "points")
    run("labels", folder / "points", folder / "classes", "--kind", "classes")
    run("split", folder / "points", "--labelled", 0.5, "--out", folder / "few")
    run("split", folder / "points", "--labelled", 0.4, "--others", "points", "--out", folder / "mixed")


def shortened(name: str) -> list[str]:
    """Overrides that make a recipe short."""
    from tad.recipe.recipe import load_recipe, options

    base = {"points": "pser", "bmn-apl-parts": "apl-bmn", "actionformer-apl-parts": "apl-small"}.get(name, name)
    recipe = load_recipe(base, EXTRA.get(name, []))
    changes = list(EXTRA.get(name, []))
    for key, value in options(recipe).items():
        word = key.rpartition(".")[2]
        used = recipe.rounds or not key.startswith(("labeler.", "detector."))
        if used and word in SHORT and (value is not None or word == "epochs"):
            changes.append(f"{key}={json.dumps([1] * len(value) if isinstance(value, list) else SHORT[word])}")
    return [base, *(word for change in changes for word in ("--set", change))]


def content(folder: Path) -> str:
    """A digest of what an artifact holds, whatever its files are."""
    found = hashlib.sha256()
    artifact = Artifact(folder.name, folder)
    if (folder / "segments.parquet").exists():
        found.update(artifact.segments().digest().encode())
    elif (folder / "model.pt").exists():
        for key, value in sorted(artifact.model()["state"].items()):
            value = value if isinstance(value, torch.Tensor) else torch.tensor(0)
            found.update(key.encode() + np.ascontiguousarray(value.numpy()).tobytes())
    else:
        return "arrays"  # what is made of them tells
    return found.hexdigest()[:16]


def digests(store: Path) -> dict[str, Any]:
    """By stage and round, the contents and fingerprints of its artifacts."""
    found: dict[str, Any] = {}
    for path in sorted(store.glob("*/meta.json")):
        meta = json.loads(path.read_text())
        place = f"{meta.get('stage', 'adopted')}@{meta.get('round', 0)}"
        found.setdefault(place, []).append([content(path.parent), path.parent.name])
    return {place: sorted(pairs) for place, pairs in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*")
    chosen = parser.parse_args()
    from tad.recipe.recipe import recipe_names

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder)
        for name in chosen.only or sorted({*recipe_names(), *EXTRA}):
            store = folder / f"store-{name}"
            words = ["run", *shortened(name), "--data", data_of(name, folder), "--local", "--store", store]
            words += ["--out", folder / f"run-{name}", "--tracking", "none"]
            try:
                tad.main([str(word) for word in words], standalone_mode=False)
            except BaseException as error:
                results[name] = f"{type(error).__name__}: {error}"[:400]
                continue
            results[name] = digests(store)
    chosen.out.write_text(json.dumps(results, indent=1))
    print({name: len(found) if isinstance(found, dict) else found for name, found in results.items()})
    if chosen.against:
        sys.exit(compare(json.loads(chosen.against.read_text()), results))


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Prints every difference; 1 if a result differs."""
    wrong = 0
    for name in after:
        old, new = before.get(name), after[name]
        if not isinstance(old, dict) or not isinstance(new, dict):
            print(name, "cannot be compared:", old if not isinstance(old, dict) else new)
            wrong = 1
            continue
        for place in sorted(old.keys() | new.keys()):
            was, now = old.get(place, []), new.get(place, [])
            if sorted(x for x, _ in was) != sorted(x for x, _ in now):
                print(f"{name}: {place}: another result: {was} -> {now}")
                wrong = 1
            elif was != now:
                print(f"{name}: {place}: the same result under another fingerprint")
    print("results differ" if wrong else "all results are the same")
    return wrong


if __name__ == "__main__":
    main()
