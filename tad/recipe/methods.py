"""The methods that a recipe can name: those of the package, and those that installed packages add.

A package adds one by an entry point in the group `tad.methods`, whose value is the method's class:

    [project.entry-points."tad.methods"]
    top = "my_package.top:TopLabeler"
"""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any, get_args

from tad.errors import ConfigError
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.actionformer.proposer import ActionFormerProposer
from tad.methods.apl.actionformer import AplActionFormerDetector, AplActionFormerProposer
from tad.methods.apl.bmn import AplBmnDetector
from tad.methods.apl.labeler import AplLabeler
from tad.methods.apl.potloc import AplPotlocDetector
from tad.methods.bmn.detector import BmnDetector
from tad.methods.controls.labelers import FullLabeler, PointSnippetsLabeler, ProposalsLabeler
from tad.methods.file.proposer import FileProposer
from tad.methods.gaufuse.detector import RskpDetector
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.gaufuse.proposer import RskpProposer
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.hrpro.proposer import HrproProposer
from tad.methods.mixed.labeler import MixedLabeler
from tad.methods.points.labeler import PointsLabeler
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.potloc.labeler import PotlocLabeler
from tad.methods.pser.labeler import PserLabeler
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.methods.pser.weak import PserWeakLabeler
from tad.methods.snippet.proposer import SnippetProposer

GROUP = "tad.methods"
METHODS: dict[str, tuple[type[Any], ...]] = {
    "proposer": (
        SnippetProposer,
        HrproProposer,
        RskpProposer,
        ActionFormerProposer,
        AplActionFormerProposer,
        FileProposer,
    ),
    "labeler": (
        PserLabeler,
        SeedLabeler,
        HrproLabeler,
        PotlocLabeler,
        PointsLabeler,
        GaufuseLabeler,
        PserWeakLabeler,
        MixedLabeler,
        AplLabeler,
        FullLabeler,
        ProposalsLabeler,
        PointSnippetsLabeler,
    ),
    "detector": (
        ActionFormerDetector,
        HrproInstanceDetector,
        PotlocDetector,
        RskpDetector,
        BmnDetector,
        AplActionFormerDetector,
        AplBmnDetector,
        AplPotlocDetector,
    ),
}
"""By role, in the order in which they are listed."""


@cache
def registered(role: str) -> dict[str, type[Any]]:
    """The classes that can fill a role, by the name of their method.

    Raises:
        ConfigError: a package's method cannot be loaded, has no role, or has the name of another one.
    """
    found = {name_of(method): method for method in METHODS[role]}
    for entry in importlib.metadata.entry_points(group=GROUP):
        method = _loaded(entry)
        if role_of(method) == role and found.setdefault(name_of(method), method) is not method:
            raise ConfigError(f"{entry.value}: there is another {role} named {name_of(method)}; give it another name")
    return found


def name_of(method: type[Any]) -> str:
    """The name of a method in recipes: the value of its field `method`."""
    return str(get_args(method.model_fields["method"].annotation)[0])


def role_of(method: type[Any]) -> str:
    """The role that a class fills, by what it can do.

    Raises:
        ConfigError: it fills none.
    """
    for role, needed in (("detector", "detect"), ("labeler", "label"), ("proposer", "propose")):
        if hasattr(method, needed):
            return role
    raise ConfigError(f"{method.__module__}.{method.__name__} is no method: it neither proposes, labels nor detects")


def _loaded(entry: importlib.metadata.EntryPoint) -> type[Any]:
    try:
        method: type[Any] = entry.load()
        name_of(method)
    except Exception as error:
        by = f" of {entry.dist.name}" if entry.dist else ""
        raise ConfigError(
            f"the method {entry.value}{by} cannot be loaded: {error}; mend or remove the package"
        ) from error
    return method
