"""Proposer `file`: another method's proposals, from a file; nothing is trained.

So any labeler and detector works on the output of any other system. A file has segments alone: methods that read
snippet scores, or an embedding, need another proposer (or `encoder` for the embedding). Stage: `file/propose` (map).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, few
from tad.methods.roles import MethodConfig, Round
from tad.options import option
from tad.stages import Artifact, Context, StageConfig


class FileProposer(MethodConfig):
    """Proposals as they are in a file, each with its score."""

    method: Literal["file"] = "file"
    path: str = option(..., "ActivityNet JSON or Parquet, with proposals of all videos", min_length=1)

    def reads_features(self, data: Dataset) -> bool:
        return False

    def problems(self, data: Dataset) -> list[str]:
        try:
            self.read(data)
        except DataError as error:
            return [str(error)]
        return []

    def warnings(self, data: Dataset) -> list[str]:
        ids = set(self.read(data).codes("video_id")[1])
        others = len(ids - {video for role in ("train", "dev", "test") for video in data.videos(role)})  # type: ignore[arg-type]
        return [f"{others} videos of {self.path} are not in {data.root} and are left out"] if others else []

    def train(self, round: Round) -> Artifact:
        """The proposals of the whole file."""
        return round.adopt(self.read(round.data), "proposals")

    def score(self, round: Round, model: Artifact) -> None:
        return None

    def embed(self, round: Round, model: Artifact) -> None:
        return None

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: the file's proposals of the round's videos, in its order."""
        return round.map(FilePropose(), {"proposals": model})

    def read(self, data: Dataset) -> Segments:
        """The proposals, checked against the dataset's training videos and classes; ids are those of its classes.

        Raises:
            DataError: none is of a training video, or there are unknown classes.
        """
        found: Segments = Segments.from_file(Path(self.path).expanduser(), dict(enumerate(data.classes)))
        ids, videos = set(found.codes("video_id")[1]), set(data.videos("train"))
        if not ids & videos:
            raise DataError(
                f"{self.path}: none of its {len(ids)} videos is a training video of {data.root} "
                f"(for instance {sorted(ids)[:2]} against {sorted(videos)[:2]})"
            )
        unknown = sorted(set(found.codes("label")[1]) - set(data.classes))
        if unknown:
            raise DataError(f"{self.path}: unknown classes {few(unknown)}; known: {', '.join(data.classes)}")
        return found


@dataclass(frozen=True)
class FilePropose:
    """Map stage: a video's proposals; input "proposals"."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "file/propose"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        by_video = context.inputs["proposals"].by_video()
        return lambda video: by_video.get(video, Segments.empty())
