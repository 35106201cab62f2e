"""Detections as a file has them, for evaluation alone.

`Segments` demands 0 <= start < end. Published detections break that here and there (ActivityNet's sample has rows of
zero length), and published evaluators score such rows as they are, so refusing or mending them would change the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tad.data.columns import checked
from tad.data.result_files import Task, read_columns
from tad.data.segments import codes, index_of


@dataclass(frozen=True)
class Detections:
    """N scored intervals; start and end are finite, and nothing more.

    Attributes:
        table: of the schema of Segments.
        form: what the file is, in words.
        scored: whether the file has scores; without them all are 1.
    """

    table: pa.Table
    form: str
    scored: bool

    @classmethod
    def from_file(cls, path: Path, classes: Mapping[int, str] | None = None, task: Task | None = None) -> Detections:
        """From any form of tad.data.result_files.

        Args:
            classes: name of each class id, for files that name classes by ids.
            task: which label of the EPIC-KITCHENS challenge's rows counts.

        Raises:
            DataError: it cannot be read, or lists every row with a value that is no finite number or no class.
        """
        columns = read_columns(path, task)
        return cls(checked(columns, str(path), classes, ordered=False), columns.form, "score" in columns.values)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def score(self) -> np.ndarray:
        """[N]."""
        return self.table.column("score").to_numpy()

    @property
    def spans(self) -> np.ndarray:
        """[N, 2] float64 seconds."""
        return np.stack([self.table.column(key).to_numpy() for key in ("start", "end")], axis=1)

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """As Segments.codes."""
        return codes(self.table.column(name))

    def label_index(self, classes: Sequence[str]) -> np.ndarray:
        """As Segments.label_index."""
        return index_of(self.table.column("label"), classes)

    def filter(self, mask: np.ndarray) -> Detections:
        """The rows where `mask` ([N] bool) holds."""
        return Detections(self.table.filter(pa.array(np.asarray(mask, dtype=bool))), self.form, self.scored)
