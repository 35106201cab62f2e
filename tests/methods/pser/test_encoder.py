"""Seeds from one proposer, the embedding from another: `encoder` of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

from tad.recipe.recipe import Recipe
from tad.recipe.rounds import Rounds
from tests.support.tiny import TinyEngine, tiny_dataset

HRPRO = {"method": "hrpro", "training": {"epochs": 1, "heads": 2, "attention_layers": 1}}
RECIPE = {
    "proposer": {"method": "snippet", "training": {"epochs": 2, "width": 6}},
    "labeler": {"method": "pser", "refine": "bag", "heads": {"epochs": 1, "hidden": 8}, "negatives": {"count": 5}},
    "rounds": 1,
}


def inputs(rounds: Rounds, stage: str) -> dict[str, str]:
    """Names and fingerprints of what the one artifact of a stage was made from."""
    found = [json.loads(path.read_text()) for path in rounds.engine.store.root.glob("*/meta.json")]
    (meta,) = (meta for meta in found if meta["stage"] == stage)
    return meta["inputs"]


def test_the_heads_read_the_encoders_embedding_and_the_proposers_seeds(tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=8)
    both = Rounds(Recipe.model_validate(RECIPE | {"encoder": HRPRO}), TinyEngine(data, 0, tmp_path / "both"))
    alone = Rounds(Recipe.model_validate(RECIPE), TinyEngine(data, 0, tmp_path / "alone"))
    labels = {name: rounds.labels(1).segments.segments() for name, rounds in (("both", both), ("alone", alone))}
    for rounds, width in ((both, 8), (alone, 6)):
        for stage in ("pser/heads", "pser/refine"):
            read = inputs(rounds, stage)
            assert read["embedding"] == rounds.round(1).embedding().fingerprint
            assert read["proposals"] == rounds.detections(0, "train").fingerprint
        video = data.videos("train")[0]
        assert rounds.round(1).embedding().array("embedding", video).shape[1] == width
    assert both.detections(0, "train").fingerprint == alone.detections(0, "train").fingerprint
    assert both.round(1).embedding().fingerprint != alone.round(1).embedding().fingerprint
    assert labels["both"].spans.tolist() != labels["alone"].spans.tolist()
    hrpro = Rounds(Recipe.model_validate(RECIPE | {"proposer": HRPRO}), both.engine)
    assert hrpro.round(1).embedding() == both.round(1).embedding(), "as if it were the proposer"
