"""Options of recipes that have moved. The old places are read for one version, with a warning that names the new ones.

* ActionFormer's options of training stood on the detector itself; they are in its group `training` now.
* What APL adds to ActionFormer, BMN and POTLoc were options of these methods; it is a method of its own now.
"""

from __future__ import annotations

import logging
from typing import Any

from tad.options import former_names
from tad.recipe.methods import registered

log = logging.getLogger(__name__)

APL = {
    ("proposer", "actionformer"): "apl-actionformer",
    ("detector", "actionformer"): "apl-actionformer",
    ("detector", "bmn"): "apl-bmn",
    ("detector", "potloc"): "apl-potloc",
}
"""The method that has the options which a method of a role had."""
GONE = {"proposer": {"training.init": "none", "training.unlabelled_weight": None}}
"""Options that nobody could set to anything else."""


def renamed(document: Any) -> Any:
    """A recipe as it is read from YAML, before validation, with the options at their new places; changed in place."""
    notes: list[str] = []
    for role in ("proposer", "encoder", "detector") if isinstance(document, dict) else ():
        config = document.get(role)
        if isinstance(config, dict) and isinstance(config.get("method"), str):
            kind = "detector" if role == "detector" else "proposer"
            if kind == "detector" and config["method"] in ("actionformer", "apl-actionformer"):
                notes += _into_training(config, role)
            notes += _to_apl(config, role, kind)
    if notes:
        log.warning("a recipe has old options, which the next version no longer reads: %s", "; ".join(notes))
    return document


def former(identity: dict[str, Any]) -> dict[str, Any]:
    """A recipe's `identity` with all options where the last version had them, so that its studies go on."""
    pretrain = registered("detector")["apl-actionformer"].model_fields["pretrain"].get_default().identity()
    roles = {role: dict(identity[role]) for role in ("proposer", "detector")}
    for role, config in roles.items():
        config["method"] = config["method"].removeprefix("apl-")
        if (role, config["method"]) in APL:
            config.setdefault("pretrain", pretrain)
        if (role, config["method"]) == ("detector", "bmn"):
            config["training"] = {"init": "none"} | config["training"]
        if (role, config["method"]) == ("detector", "actionformer"):
            config |= config.pop("training")
    return identity | roles


def _into_training(config: dict[str, Any], role: str) -> list[str]:
    training = registered("detector")["apl-actionformer"].model_fields["training"].annotation
    known = training.model_fields.keys() | former_names(training).keys()  # type: ignore[union-attr, arg-type]
    old = [name for name in config if name in known]
    group = config.setdefault("training", {}) if old else {}
    if not isinstance(group, dict):
        return []
    for name in old:
        value = config.pop(name)
        group[name] = {**group[name], **value} if _groups(group.get(name), value) else value
    return [f"{role}.{name} is {role}.training.{name} now" for name in old]


def _to_apl(config: dict[str, Any], role: str, kind: str) -> list[str]:
    """Gives a method that has options of APL's the name of APL's method; those that change nothing go."""
    new = APL.get((kind, config["method"]))
    if new is None:
        return []
    methods = registered(kind)
    mine, theirs = (_leaves(methods[name]().model_dump()) for name in (config["method"], new))
    neutral = {key: value for key, value in theirs.items() if key not in mine} | GONE.get(kind, {})
    given = {key: value for key, value in _leaves(config).items() if key in neutral}
    other = [key for key, value in given.items() if value != neutral[key]]
    for key in given.keys() - set(other):
        if not other or key not in theirs:
            _drop(config, key.split("."))
    if not other:
        return []
    config["method"] = new
    return [f"{role}.method is {new} now, with {', '.join(other)}"]


def _groups(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of all groups by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _drop(config: dict[str, Any], key: list[str]) -> None:
    """Removes an option, and the groups that are empty without it."""
    name, *rest = key
    if rest:
        _drop(config[name], rest)
    if not rest or not config[name]:
        del config[name]
