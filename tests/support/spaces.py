"""Recipes and the parts of search spaces that are for them."""

from __future__ import annotations

from functools import cache

from search_spaces.load import families, load
from search_spaces.space import Space
from tad.errors import ConfigError
from tad.recipe.recipe import load_recipe

RECIPES = {
    "pser": ("pser", []),
    "mined": ("pser", ["proposer.training.action_rows=mined"]),
    "bag": ("pser", ["labeler.refine=bag"]),
    "fallback": ("pser", ["labeler.refine=bag", "labeler.merge.top_k=8", "proposer.candidates.suppression=nms"]),
    "hrpro": ("hrpro", []),
    "potloc": ("potloc", []),
    "potloc-hard": ("potloc", ["detector.postprocess.suppression=nms"]),
    "points": ("pser", ["labeler.method=points"]),
    "quality": ("pser", ["labeler.method=apl", "detector.training.quality.enabled=true"]),
    "seeds": ("seeds", []),
    "gaufuse": ("gaufuse-small", ["rounds=3"]),
    "bmn": ("apl-bmn", []),
    "apl": ("apl-small", ["detector.pretrain.enabled=false"]),  # of its encoder a change says proposer or detector
}
"""Recipes under which every parameter of every family matters at least once."""


@cache
def space_of(family: str, name: str) -> Space | None:
    """The family's parameters for one of RECIPES; None if it has none."""
    try:
        return load(family).for_recipe(load_recipe(*RECIPES[name]))
    except ConfigError as error:
        assert "nothing to tune" in str(error), error
        return None


def spaces() -> list[tuple[str, str]]:
    return [(family, name) for family in families() for name in RECIPES if space_of(family, name)]
