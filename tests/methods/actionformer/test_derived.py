"""What null options are derived from: each rule, a given value, and what a run is told of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.actionformer.derived import RULES, Facts, derived
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.actionformer.options import Training
from tests.support.plain import as_artifact
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

GESTURES = Facts(128, np.linspace(3.0, 20.0, 432), np.linspace(115, 191, 108).round(), 108)
"""Short recordings of short actions."""
ACTIVITIES = Facts(96, np.linspace(3.0, 68.0, 652), np.linspace(621, 1282, 32).round(), 32)
FILMS = Facts(2048, np.linspace(2.0, 600.0, 3000), np.linspace(300, 9000, 200).round(), 200)


def of(facts: Facts, **given: object) -> Training:
    return derived(Training(**given), facts)[0]


def test_every_null_has_a_rule_and_every_rule_gives_what_the_option_takes() -> None:
    nulls = {name for name, value in Training() if value is None}
    assert nulls == RULES.keys()
    for facts in (GESTURES, ACTIVITIES, FILMS):
        config, reasons = derived(Training(), facts)
        assert reasons.keys() == nulls and all(reasons.values())
        assert Training.model_validate(config.model_dump()) == config
        assert derived(config, facts) == (config, {})


def test_networks_and_windows_follow_labels_and_recordings() -> None:
    gestures, activities, films = map(of, (GESTURES, ACTIVITIES, FILMS))
    assert [c.width for c in (gestures, activities, films)] == [64, 64, 512]
    assert [c.upsample for c in (gestures, activities, films)] == [2, 1, 1]
    assert [c.levels for c in (gestures, activities, films)] == [4, 5, 8]
    assert [c.lr for c in (gestures, activities, films)] == pytest.approx([8e-4, 8e-4, 1e-4])
    for facts, config in ((GESTURES, gestures), (ACTIVITIES, activities)):
        assert 0.94 <= (facts.recordings <= config.max_length).mean() < 1
    assert films.max_length == 2304


def test_a_few_videos_are_passed_over_more_often() -> None:
    assert of(FILMS).epochs == 35 and of(FILMS).ema_decay == pytest.approx(1 - 10 / 3500)
    for items in (1, 3, 11, 32):
        config = of(replace(ACTIVITIES, items=items))
        steps = config.epochs * max(1, items // 2)
        assert 300 <= steps < 300 + max(1, items // 2) or (config.epochs == 35 and steps > 300)
        assert config.ema_decay == pytest.approx(1 - 10 / steps)


def test_a_given_value_wins_and_others_follow_from_it() -> None:
    config, reasons = derived(Training(width=512, upsample=4, batch_size=8, epochs=3), GESTURES)
    assert (config.width, config.upsample, config.epochs) == (512, 4, 3)
    assert not reasons.keys() & {"width", "upsample", "epochs"}
    assert config.lr == pytest.approx(2e-4)
    assert config.levels == of(replace(GESTURES, labels=4 * GESTURES.labels), upsample=1).levels


def test_values_are_in_the_fingerprint_the_record_and_the_log(
    plain: tuple[Dataset, Segments], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = plain
    engine = TinyEngine(data, 0, tmp_path)
    pseudo = taught(as_artifact(labels, tmp_path / "labels"))
    auto = ActionFormerDetector(training={"epochs": 1, "window": 9}).train(round_of(engine), pseudo)
    meta = json.loads((auto.path / "meta.json").read_text())
    config = meta["config"]
    assert all(config[name] is not None for name in RULES) and (config["width"], config["levels"]) == (32, 4)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    told = next(event for event in events if event["kind"] == "derived")
    assert told["fingerprint"] == auto.fingerprint and told["name"] == "actionformer/train"
    assert told["options"]["width"] == [32, "about half of 8 feature channels"]
    assert told["options"].keys() == RULES.keys() - {"epochs"}
    said = capsys.readouterr().err
    assert (
        "  width 32: about half of 8 feature channels\n" in said
        and "epochs" not in said.split("actionformer/train:")[0]
    )
    # Who gives these values gets the same model, without another training.
    spelled = ActionFormerDetector(training=Training(**{name: config[name] for name in Training.model_fields}))
    assert spelled.train(round_of(engine), pseudo).path == auto.path
    other = ActionFormerDetector(training={"epochs": 1, "window": 9, "width": 16}).train(round_of(engine), pseudo)
    assert other.fingerprint != auto.fingerprint
