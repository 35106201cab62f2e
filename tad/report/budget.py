"""How many labels a result cost: every report states it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tad.data.dataset import Dataset, Derived, Role
from tad.evaluation.ground_truth import ground_truth


class LabelBudget(BaseModel):
    """What annotators had to give.

    Attributes:
        points: of training videos, that training sees.
        videos: training videos with such points.
        held_out_points: of training videos, read by the score of points only.
        class_videos: training videos of which training knows the classes alone.
        full_videos: training videos of which it knows every action's boundaries.
        full_actions: how many actions these hold.
        bare_videos: training videos without any label.
        dev_points: of dev videos, where the labels made for them select.
        dev_class_videos: dev videos whose classes select.
        boundaries: annotated segments read for selection: of the dev videos, if the score needs them. Test videos only
            count where they are misused for selection.
        boundary_videos: videos of these segments' role.
        select: the selecting score.
        derived: how `tad labels` or `tad split --labelled` made these labels, if they did.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    points: int = 0
    videos: int = 0
    class_videos: int = 0
    full_videos: int = 0
    full_actions: int = 0
    bare_videos: int = 0
    held_out_points: int = 0
    dev_points: int = 0
    dev_class_videos: int = 0
    boundaries: int = 0
    boundary_videos: int = 0
    select: str = "points"
    derived: str | None = None

    @property
    def training(self) -> str:
        """What training sees, in words."""
        parts = []
        if self.points or not (self.class_videos or self.full_videos):
            parts.append(f"{self.points} points in {self.videos} training videos")
        if self.class_videos:
            parts.append(f"video-level classes of {self.class_videos} training videos")
        if self.full_videos:
            parts.append(f"full labels of {self.full_videos} training videos with {self.full_actions} actions")
        if self.full_videos and self.bare_videos:
            parts.append(f"no label of {self.bare_videos} other{'' if self.bare_videos == 1 else 's'}")
        return ", ".join(parts)

    def __str__(self) -> str:
        parts = [self.training]
        if self.held_out_points:
            parts.append(f"{self.held_out_points} held-out points")
        if self.dev_points:
            parts.append(f"{self.dev_points} points of dev videos")
        if self.dev_class_videos:
            parts.append(f"the classes of {self.dev_class_videos} dev videos")
        if self.boundaries:
            role = "test" if self.select == "test" else "dev"
            parts.append(f"the boundaries of {self.boundaries} actions in {self.boundary_videos} {role} videos")
        elif self.full_videos:
            parts.append("no other boundaries")
        else:
            parts.append("no boundaries")
        return ", ".join(parts) + (f" ({self.derived})" if self.derived else "")


def label_budget(data: Dataset, select: str) -> LabelBudget:
    """The labels that training on a dataset and selecting by `select` (of a recipe) uses.

    Annotations are read of the role that selects only, and of none with select "points".

    Raises:
        DataError: that role's annotations are malformed.
    """
    train, dev = data.videos("train"), data.videos("dev")
    kinds = data.kinds("train")
    full = [own for v in train if (own := data.full_labels(v)) is not None]
    role: Role | None = {"dev-map": "dev", "dev-quality": "dev", "test": "test"}.get(select)  # type: ignore[assignment]
    return LabelBudget(
        points=data.point_count("train"),
        videos=len(data.pointed("train")),
        class_videos=kinds["classes"],
        full_videos=len(full),
        full_actions=sum(len(own.label) for own in full),
        bare_videos=kinds["none"],
        held_out_points=sum(len(data.held_out(v).time) for v in train) if select == "points" else 0,
        dev_points=data.point_count("dev") if select == "dev-quality" else 0,
        dev_class_videos=sum(len(data.video_classes(v)) > 0 for v in dev) if select == "classes" else 0,
        boundaries=len(ground_truth(data, role)) if role else 0,
        boundary_videos=len(data.videos(role)) if role else 0,
        select=select,
        derived=_derived(data.manifest.labels),
    )


def _derived(made: Derived | None) -> str | None:
    if made is None:
        return None
    kinds = ", ".join(f"{kind} {n}" for kind, n in made.kinds.items())
    if made.mode is not None:
        return f"drawn from {made.source} by `tad split --labelled`: {kinds}; {made.mode}, seed {made.seed}"
    origin = "annotations" if made.classes_from == "annotations" else "given labels"
    return f"made of {made.source} by `tad labels`: {kinds}; classes from {origin}"
