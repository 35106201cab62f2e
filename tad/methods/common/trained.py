"""A trained model out of an artifact, checked against the dataset that it is to work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from tad.errors import RunError
from tad.stages import Context

Model = TypeVar("Model", bound=nn.Module)
Settings = dict[str, Any]


def restore(
    context: Context, build: Callable[[Settings], Model], width: int | None = None, **changes: Any
) -> tuple[Model, Settings]:
    """The model of the input "model" with its weights, and its settings.

    Args:
        context: of a stage.
        build: the module with fresh weights, from the settings that were saved with it. These name its `dim` and
            `classes` (a number, or the names), at their top or under `architecture`.
        width: of what the model reads; None: of the dataset's features.
        changes: replace entries of `architecture`.

    Raises:
        RunError: the model was trained for another feature width or other classes.
    """
    artifact, data = context.inputs["model"], context.data
    saved = artifact.model()
    settings: Settings = saved["settings"]
    known = {**settings.get("architecture", {}), **settings}
    here: dict[str, Any] = {"dim": data.manifest.grid.dim if width is None else width}
    if "classes" in known:
        here["classes"] = list(data.classes) if isinstance(known["classes"], list) else len(data.classes)
    for key, value in here.items():
        if known[key] != value:
            raise RunError(
                f"{artifact.path}: the model was trained with {key} = {_text(known[key])}, but {data.root} has "
                f"{_text(value)}; train it on this dataset"
            )
    if changes:
        settings["architecture"] |= changes
    model = build(settings)
    model.load_state_dict(saved["state"])
    return model, settings


def load(
    context: Context, build: Callable[[Settings], Model], width: int | None = None
) -> tuple[Model, Settings, torch.device]:
    """`restore`, in evaluation on this machine's device."""
    model, settings = restore(context, build, width)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), settings, device


def of_architecture(model: Callable[..., Model]) -> Callable[[Settings], Model]:
    """The `build` of a model whose arguments are the settings' `architecture`."""
    return lambda settings: model(**settings["architecture"])


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
