"""What all synthetic videos share: how hard they are, what the classes look like, how latents become features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

SCENE, MOTION = 16, 24
"""Sizes of the two latent vectors of a snippet: what the place looks like, and what happens."""
MODES = 3
"""Ways to perform a class."""
BACKGROUNDS = 12
"""Background motions."""
SHRINK = 0.6
"""Last factor of the features; their mean is then about 0.4 times that of a unit ReLU, as I3D's is."""

GROUPS = (
    ("CricketBowling", "CricketShot", "BaseballPitch"),
    ("HammerThrow", "ThrowDiscus", "Shotput"),
    ("HighJump", "LongJump", "PoleVault", "JavelinThrow"),
    ("Diving", "CliffDiving"),
    ("BasketballDunk", "VolleyballSpiking", "SoccerPenalty", "FrisbeeCatch"),
    ("GolfSwing", "TennisSwing"),
    ("Billiards",),
    ("CleanAndJerk",),
)
"""THUMOS14 classes that look alike; other classes are grouped four by four in the order of the class list."""


def _from(easy: float, hard: float) -> float:
    """A level by its easy and its hard value."""
    return field(metadata={"ends": (easy, hard)})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Cues:
    """What features show of where actions begin and end: levels of their names in `Levels`, 0 to 1; None: as the
    difficulty has it. At .5 the boundaries that features show have a mean tIoU of .77 with the annotated ones."""

    jitter: float | None = None
    edge_drop: float | None = None
    context: float | None = None

    def given(self) -> dict[str, float]:
        """Those that are not left to the difficulty."""
        return {name: level for name, level in vars(self).items() if level is not None}


NO_CUES = Cues()
"""All as the difficulty has it."""


@dataclass(frozen=True)
class Levels:
    """Every nuisance as a function of one difficulty in [0, 1]; 0.5 is about as hard as THUMOS14 is for HR-Pro."""

    similarity: float = _from(0.05, 0.35)
    """Share of a class prototype that its group has in common."""
    mode_spread: float = _from(0.15, 0.65)
    """Spread of the modes of a class."""
    video_shift: float = _from(0.10, 0.60)
    """Deviation of a class inside one video."""
    instance_shift: float = _from(0.15, 0.65)
    """Deviation of one instance."""
    edge_drop: float = _from(0.30, 0.90)
    """How much weaker the two ends of an instance are; at 1 they do not show."""
    weak: float = _from(0.10, 0.70)
    """How much weaker the weakest instances are."""
    jitter: float = _from(0.04, 0.28)
    """Boundary jitter: standard deviation of each end, share of the instance's length."""
    smooth: float = _from(0.40, 1.20)
    """Temporal smoothing, units of 0.64 s."""
    context: float = _from(0.10, 0.70)
    """Pull of the background towards the video's action; it varies around .6 of this."""
    hard_rate: float = _from(1.0, 8.0)
    """Hard-background events per minute of background."""
    hard_strength: float = _from(0.40, 1.00)
    scene_own: float = _from(0.30, 0.60)
    """Share of the scene that is the video's own."""
    noise: float = _from(0.50, 1.30)
    """Autoregressive noise of the latents."""
    iid: float = _from(0.10, 0.40)
    """Independent noise of the features."""

    @classmethod
    def at(cls, difficulty: float, cues: Cues = NO_CUES) -> Levels:
        """Linear between the easy and the hard value of each, but for the cues that are given."""
        ends = {one.name: one.metadata["ends"] for one in fields(cls)}
        levels = {name: easy + (hard - easy) * difficulty for name, (easy, hard) in ends.items()}
        return cls(**levels | cues.given())


def blend(share: float, common: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A unit-variance mixture of two unit-variance vectors; `share` of the variance is `common`."""
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


def look_alikes(classes: Sequence[str]) -> list[list[int]]:
    """Class indices in groups of confusable classes."""
    index = {name: i for i, name in enumerate(classes)}
    known = [[index[name] for name in group if name in index] for group in GROUPS]
    grouped = {i for group in known for i in group}
    rest = [i for i in range(len(classes)) if i not in grouped]
    return [group for group in known if group] + [rest[i : i + 4] for i in range(0, len(rest), 4)]


class World:
    """Prototypes of the classes and backgrounds, and the map from latents to features.

    Depends on the seed, the class list and the difficulty; `dim` only changes the last map, and `cues` nothing but
    `levels`.

    Attributes:
        motion: [C, MODES, MOTION] class-mode prototypes.
        phase: [C, 3, MOTION] what start, middle and end of a class add.
        scene: [C, SCENE] where a class takes place.
        background: [BACKGROUNDS, MOTION].
        peers: for each class the others of its group.
    """

    def __init__(self, classes: Sequence[str], seed: int, difficulty: float, dim: int, cues: Cues = NO_CUES) -> None:
        self.levels = levels = Levels.at(difficulty, cues)
        self.peers: list[list[int]] = [[] for _ in classes]
        rng = np.random.default_rng([seed, 1])
        count = len(classes)
        self.motion = np.zeros((count, MODES, MOTION))
        self.phase = np.zeros((count, 3, MOTION))
        self.scene = np.zeros((count, SCENE))
        for group in look_alikes(classes):
            size = len(group)
            modes = rng.standard_normal((size, MODES, MOTION))
            common = blend(levels.similarity, rng.standard_normal(MOTION), rng.standard_normal((size, MOTION)))
            self.motion[group] = common[:, None] + levels.mode_spread * (modes - modes.mean(1, keepdims=True))
            own = rng.standard_normal((size, 3, MOTION))
            self.phase[group] = blend(levels.similarity, rng.standard_normal((3, MOTION)), own)
            self.scene[group] = blend(0.4, rng.standard_normal(SCENE), rng.standard_normal((size, SCENE)))
            for i in group:
                self.peers[i] = [j for j in group if j != i]
        self.background = rng.standard_normal((BACKGROUNDS, MOTION))
        self._weights, self._bias = self._map(np.random.default_rng([seed, 2, dim]), dim)

    @staticmethod
    def _map(rng: np.random.Generator, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """The first half of the features ("rgb") sees the scene clearly, the second ("flow") the motion."""
        scene = rng.standard_normal((SCENE, dim)) / np.sqrt(SCENE)
        motion = rng.standard_normal((MOTION, dim)) / np.sqrt(MOTION)
        scene[:, dim // 2 :] *= 0.35
        motion[:, : dim // 2] *= 0.60
        bias = 0.3 * rng.standard_normal(dim)
        return np.concatenate([scene, motion]).astype(np.float32), bias.astype(np.float32)

    def render(self, latents: np.ndarray, rng: np.random.Generator, dtype: str) -> np.ndarray:
        """[T, SCENE + MOTION] latents to [T, dim] non-negative features, a block of rows at a time."""
        features = np.empty((len(latents), len(self._bias)), dtype=dtype)
        for begin in range(0, len(latents), 2048):
            rows = latents[begin : begin + 2048].astype(np.float32) @ self._weights + self._bias
            rows += self.levels.iid * rng.standard_normal(rows.shape, dtype=np.float32)
            features[begin : begin + 2048] = SHRINK * np.maximum(rows, 0)
        return features
