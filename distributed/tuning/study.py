"""The Optuna study of a search: where it is stored, whether it is the right one, and what it may take from another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from search_spaces.space import Space
from tad.errors import RunError


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """A database by its URL; one in an SQLite file is made where it is missing.

    Raises:
        RunError: it cannot be reached or used, or the driver for it is not installed.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
    except ArgumentError as error:
        raise RunError(
            f"--storage: not the URL of a database: {error}; for instance sqlite:////folder/study.db or "
            "postgresql://user:password@host/name"
        ) from error
    shown = address.render_as_string(hide_password=True)
    options: dict[str, Any] = {"pool_pre_ping": True}
    guard: Any = contextlib.nullcontext()
    try:
        if address.drivername.startswith("sqlite"):
            if not address.database or address.database == ":memory:":
                raise RunError(f"{shown}: name a file: sqlite:////folder/study.db")
            path = Path(address.database).expanduser().resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
            options = {"connect_args": {"timeout": 60}}  # seconds that a writer waits for another
            # Two that make the tables at once leave half of them.
            guard = FileLock(path.with_name(f".{path.name}.lock"))
        with guard:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except RunError:
        raise
    except ImportError as error:
        raise RunError(f"{shown}: the Python package for this kind of database is missing: {error}") from error
    except Exception as error:  # SQLAlchemy's, the database's own and the file system's
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{shown}: the study's storage cannot be used: {reason}; mend it, or give --storage") from error


def join(
    storage: optuna.storages.BaseStorage, name: str, identity: Mapping[str, str], directions: list[str]
) -> optuna.Study:
    """The study of this name, made where there is none.

    Args:
        identity: what a study is about, by name; another's study is refused.
        directions: "maximize" or "minimize" for each number that a trial ends with.

    Raises:
        RunError: the study of this name is about something else; tells what.
    """
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    if "identity" not in study.user_attrs:
        if study.trials:
            raise RunError(f"study {name}: not one of `tad tune`; give another name with --study")
        study.set_user_attr("identity", dict(identity))
    earlier: Mapping[str, str] = study.user_attrs["identity"]
    differ = [key for key in identity if earlier.get(key) != identity[key]]
    if [d.name.lower() for d in study.directions] != directions:
        differ.append("number of objectives")
    if differ:
        raise RunError(
            f"study {name}: is another search: its {', '.join(differ)} differ{'s' if len(differ) == 1 else ''}. Give "
            "this one another name with --study, or repeat the earlier command; finished stages are shared either way"
        )
    return study


def best_of(storage: optuna.storages.BaseStorage, name: str, space: Space, most: int = 5) -> list[dict[str, Any]]:
    """The best parameters of another study that this space has, too, best first; to be tried here once more.

    Its scores are not taken over: they may be those of another recipe or other data.

    Raises:
        RunError: no such study, or none of its parameters lies in this space.
    """
    known = {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise RunError(f"--warm-start {name}: no such study; in the storage: {there}. Give its folder, or --storage")
    study = optuna.load_study(study_name=name, storage=storage)
    done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE and t.values]
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    found: list[dict[str, Any]] = []
    for trial in sorted(done, key=lambda t: (sign * t.values[0], t.number)):
        params = _inside(trial.params, space)
        if params and params not in found:
            found.append(params)
    if not found:
        raise RunError(f"--warm-start {name}: none of its finished trials has a parameter of this space")
    return found[:most]


def _inside(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Those parameters that the space suggests, at values within its ranges."""
    scratch = optuna.create_study()
    scratch.enqueue_trial(dict(params))
    trial = scratch.ask()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which is what is looked for
        with contextlib.suppress(ValueError):  # a choice that is none any more
            space.suggest(trial)
    good = {}
    for key, distribution in trial.distributions.items():
        if key in params and distribution._contains(distribution.to_internal_repr(params[key])):
            good[key] = params[key]
    return good


def study_name(text: str) -> str:
    """A name that can be a folder, too."""
    return re.sub(r"[^\w.+=@-]+", "-", text).strip("-.") or "study"


def digest(document: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
