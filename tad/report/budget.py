"""How many labels a result cost: every report states it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tad.data.dataset import Dataset, Role
from tad.data.ground_truth import ground_truth


class LabelBudget(BaseModel):
    """What annotators had to give.

    Attributes:
        points: of training videos, that training sees.
        videos: training videos with such points.
        held_out_points: of training videos, read by the score of points only.
        dev_points: of dev videos, where the labels made for them select.
        boundaries: annotated segments read for selection: of the dev videos, if the score needs them. Test videos only
            count where they are misused for selection.
        boundary_videos: videos of these segments' role.
        select: the selecting score.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    points: int = 0
    videos: int = 0
    held_out_points: int = 0
    dev_points: int = 0
    boundaries: int = 0
    boundary_videos: int = 0
    select: str = "points"

    def __str__(self) -> str:
        parts = [f"{self.points} points in {self.videos} training videos"]
        if self.held_out_points:
            parts.append(f"{self.held_out_points} held-out points")
        if self.dev_points:
            parts.append(f"{self.dev_points} points of dev videos")
        if self.boundaries:
            role = "test" if self.select == "test" else "dev"
            parts.append(f"the boundaries of {self.boundaries} actions in {self.boundary_videos} {role} videos")
        else:
            parts.append("no boundaries")
        return ", ".join(parts)


def label_budget(data: Dataset, select: str) -> LabelBudget:
    """The labels that training on a dataset and selecting by `select` (of a recipe) uses.

    Annotations are read of the role that selects only, and of none with select "points".

    Raises:
        DataError: that role's annotations are malformed.
    """
    train, dev = data.videos("train"), data.videos("dev")
    points = [len(data.points(v).time) for v in train]
    role: Role | None = {"dev-map": "dev", "dev-quality": "dev", "test": "test"}.get(select)  # type: ignore[assignment]
    return LabelBudget(
        points=sum(points),
        videos=sum(n > 0 for n in points),
        held_out_points=sum(len(data.held_out(v).time) for v in train) if select == "points" else 0,
        dev_points=sum(len(data.points(v).time) for v in dev) if select == "dev-quality" else 0,
        boundaries=len(ground_truth(data, role)) if role else 0,
        boundary_videos=len(data.videos(role)) if role else 0,
        select=select,
    )
