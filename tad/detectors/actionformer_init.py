"""Where the detector `actionformer` starts from: another model's weights, of the same pyramid.

That model may be the same detector's of an earlier round, a proposer's, or a pyramid pre-trained without heads; what it
does not have starts fresh. Options of the network that are null are taken from it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tad.data.segments import listing
from tad.errors import ConfigError
from tad.stage import Context, StageConfig

NETWORK = ("width", "heads", "levels", "upsample", "window")
"""Options of the network in which both trainings have to agree; null ones are taken from the model before."""
SAME = ("dim", "classes", *NETWORK)
"""Settings in which the two models have to agree."""
BACKBONE = ("embedding.", "stem.", "branch.", "necks.")


def differing(options: StageConfig, theirs: StageConfig) -> list[str]:
    """Options of the network that two trainings set, and not alike: the one cannot go on from the other."""
    pairs = [(name, getattr(options, name), getattr(theirs, name)) for name in NETWORK]
    return [name for name, mine, other in pairs if None not in (mine, other) and mine != other]


def model_before(context: Context) -> dict[str, Any]:
    """What the fit stage of the input "before" saved.

    Raises:
        ConfigError: there is none, or it is no pyramid of ActionFormer's.
    """
    artifact = context.inputs.get("before")
    if artifact is None:
        raise ConfigError("init: before needs a model to start from, and there is none; set init to none")
    saved = artifact.model()
    missing = [part for part in BACKBONE if not any(key.startswith(part) for key in saved["state"])]
    if missing or not saved["settings"].keys() >= set(SAME) - {"classes"}:
        raise ConfigError(
            f"{artifact.path / 'model.pt'}: no pyramid of actionformer, so the detector cannot start from it; use "
            "proposer actionformer, or set init to none"
        )
    return saved


def go_on_from(saved: dict[str, Any], module: nn.Module, settings: dict[str, Any], context: Context) -> None:
    """Copies all weights and running numbers that both models have.

    Raises:
        ConfigError: settings or shapes differ; all of them are listed.
    """
    theirs = saved["settings"]
    problems = [
        f"{key} is {theirs[key]} there and {settings[key]} here"
        for key in SAME
        if key in theirs and theirs[key] != settings[key]
    ]
    own, given = module.state_dict(), saved["state"]
    shared = {key: value for key, value in given.items() if key in own}
    if not problems:
        problems = [
            f"{key} has shape {list(value.shape)} there and {list(own[key].shape)} here"
            for key, value in shared.items()
            if value.shape != own[key].shape
        ]
        problems += [f"{key} is missing there" for key in own if key.startswith(BACKBONE) and key not in given]
    if problems:
        path = context.inputs["before"].path / "model.pt"
        raise ConfigError(
            f"init: before, but the model in {path} does not fit; set the options alike, or init to none: "
            + listing(problems)
        )
    module.load_state_dict(shared, strict=False)
