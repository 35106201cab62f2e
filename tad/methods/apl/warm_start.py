"""Starting a detector's training from another model's weights, where the two networks are alike.

That model may be the same detector's of an earlier round, or a part of the network that was trained alone; what it does
not have starts fresh.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from tad.errors import ConfigError, listing
from tad.methods.bmn.options import SHAPE
from tad.stages import Context, StageConfig

NETWORK = ("width", "heads", "levels", "upsample", "window")
"""Options of a pyramid in which two trainings have to agree; null ones are taken from the model before."""


class Kin(NamedTuple):
    """What a model needs to have for a network to start from it."""

    same: tuple[str, ...]
    """Settings in which the two have to agree, where the model before has them."""
    always: tuple[str, ...]
    """Those that every such model has."""
    parts: tuple[str, ...]
    """Beginnings of the names of weights that it needs to have."""
    refusal: str
    """Of a model without these: what it is not, and what to do."""


PYRAMID = Kin(
    same=("dim", "classes", *NETWORK),
    always=("dim", *NETWORK),
    parts=("embedding.", "stem.", "branch.", "necks."),
    refusal="no pyramid of actionformer, so the detector cannot start from it; use proposer actionformer, or set init "
    "to none",
)
BASE = Kin(
    same=(*SHAPE, "classes", "durations", "samples", "published_edges", "distance"),
    always=SHAPE,
    parts=("base.",),
    refusal="no base of bmn, so the detector cannot start from it; use a model of bmn, or set init to none",
)


def differing(options: StageConfig, theirs: StageConfig) -> list[str]:
    """Options of the pyramid that two trainings set, and not alike: the one cannot go on from the other."""
    pairs = [(name, getattr(options, name), getattr(theirs, name)) for name in NETWORK]
    return [name for name, mine, other in pairs if None not in (mine, other) and mine != other]


def model_before(context: Context, kin: Kin) -> dict[str, Any]:
    """What the fit stage of the input "before" saved.

    Raises:
        ConfigError: there is none, or it is of another kind.
    """
    artifact = context.inputs.get("before")
    if artifact is None:
        raise ConfigError("init: before needs a model to start from, and there is none; set init to none")
    saved = artifact.model()
    missing = [part for part in kin.parts if not any(key.startswith(part) for key in saved["state"])]
    if missing or not saved["settings"].keys() >= set(kin.always):
        raise ConfigError(f"{artifact.path / 'model.pt'}: {kin.refusal}")
    return saved


def go_on_from(saved: dict[str, Any], module: nn.Module, settings: dict[str, Any], context: Context, kin: Kin) -> None:
    """Copies all weights and running numbers that both models have.

    Raises:
        ConfigError: settings or shapes differ; all of them are listed.
    """
    theirs = saved["settings"]
    problems = [
        f"{key} is {theirs[key]} there and {settings[key]} here"
        for key in kin.same
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
        problems += [f"{key} is missing there" for key in own if key.startswith(kin.parts) and key not in given]
    if problems:
        path = context.inputs["before"].path / "model.pt"
        raise ConfigError(
            f"init: before, but the model in {path} does not fit; set the options alike, or init to none: "
            + listing(problems)
        )
    module.load_state_dict(shared, strict=False)
