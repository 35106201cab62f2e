"""The latents of one synthetic video, conditioned on its annotated segments.

The model is the one the published HR-Pro code was calibrated on: inside an instance a class-mode prototype plus a
phase term (start, middle, end) plus deviations of the video and of the instance, weaker at both ends; outside it
background motions that are pulled towards the action of the video, and hard-background events (the run-up or the
aftermath of the video's action alone, or a look-alike class); everything under autoregressive noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.special import erf

from tad.data.grid import SnippetGrid
from tad.prepare.synth_world import BACKGROUNDS, MODES, MOTION, SCENE, World, blend

UNIT = SnippetGrid(fps=25, stride=16, window=16, length=1).from_edge(1.0)
"""Seconds; the step in which the model's time constants are given (16 frames at 25 a second)."""
NOISE_MEMORY = 0.6
"""Correlation of the latent noise over one UNIT."""
SHOT, BACKGROUND_CHANGE = 20.0, 6.0
"""Mean seconds between shot cuts, and between background motions."""


def draw_latents(
    world: World, grid: SnippetGrid, spans: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[T, SCENE + MOTION] latents of one video.

    Args:
        grid: the video's snippets.
        spans: [N, 2] annotated segments in seconds.
        labels: [N] class indices.
    """
    clock = _Clock(grid)
    present = np.unique(labels)
    shift = {
        int(c): _Shift(world.levels.video_shift * rng.standard_normal(MOTION), rng.dirichlet(np.full(MODES, 0.5)))
        for c in sorted({p for c in present for p in (int(c), *world.peers[c])})
    }
    scene = _scene(world, clock, present, rng)
    background = _background(world, clock, present, shift, rng)
    if len(present):
        background = _hard_background(world, clock, spans, present, shift, background, rng)
    cover, action = _actions(world, clock, jittered(spans, world.levels.jitter, rng), labels, shift, rng)
    motion = action + (1 - cover)[:, None] * background
    latents = np.concatenate([scene, motion], axis=1)
    return latents + world.levels.noise * _correlated(rng, clock, latents.shape[1], NOISE_MEMORY)


@dataclass(frozen=True)
class _Shift:
    """How a class looks in this video: a deviation, and how often each mode occurs."""

    motion: np.ndarray
    modes: np.ndarray


class _Clock:
    """Centres, borders and step of the snippets, in seconds."""

    def __init__(self, grid: SnippetGrid) -> None:
        rows = np.arange(grid.length)
        half = 0.5 * grid.window / grid.fps
        self.length = grid.length
        self.centre = grid.from_position(rows.astype(np.float64))
        self.begin, self.end = self.centre - half, self.centre + half
        self.step = 1 / grid.rate

    def pieces(self, rng: np.random.Generator, seconds: float) -> np.ndarray:
        """[T] piece number of each snippet; pieces last `seconds` on average."""
        return np.cumsum(rng.random(self.length) < self.step / seconds)


def _correlated(rng: np.random.Generator, clock: _Clock, size: int, memory: float) -> np.ndarray:
    """[T, size] unit-variance autoregressive noise whose correlation over UNIT seconds is `memory` on any grid."""
    rho = memory ** (clock.step / UNIT)
    noise = rng.standard_normal((clock.length, size))
    noise[1:] *= np.sqrt(1 - rho * rho)
    return lfilter([1.0], [1.0, -rho], noise, axis=0)


def _scene(world: World, clock: _Clock, present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[T, SCENE]: the classes' scene and the video's own, jumping at shot cuts."""
    base = world.scene[present].mean(0) if len(present) else rng.standard_normal(SCENE)
    shot = clock.pieces(rng, SHOT)
    shots = rng.standard_normal((int(shot[-1]) + 1, SCENE))[shot]
    own = rng.standard_normal(SCENE)
    return blend(world.levels.scene_own, blend(0.5, own, shots), base)


def _background(
    world: World, clock: _Clock, present: np.ndarray, shift: dict[int, _Shift], rng: np.random.Generator
) -> np.ndarray:
    """[T, MOTION]: a few motions, pulled towards the video's action by a slowly varying amount."""
    change = clock.pieces(rng, BACKGROUND_CHANGE)
    kinds = rng.choice(BACKGROUNDS, p=rng.dirichlet(np.full(BACKGROUNDS, 0.5)), size=int(change[-1]) + 1)
    background = world.background[kinds][change] + 0.5 * rng.standard_normal(MOTION)
    if not len(present):
        return background
    pull = np.mean([world.motion[c].mean(0) + shift[int(c)].motion for c in present], axis=0)
    amount = world.levels.context * (0.6 + 0.4 * _correlated(rng, clock, 1, 0.95))
    amount = np.clip(amount, 0.0, 0.95)
    return (1 - amount) * background + amount * pull


def _hard_background(
    world: World,
    clock: _Clock,
    spans: np.ndarray,
    present: np.ndarray,
    shift: dict[int, _Shift],
    background: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The background with look-alike events of 1 to 5 s, at least two units away from every annotated segment."""
    near = (clock.end[:, None] > spans[None, :, 0] - 2 * UNIT) & (clock.begin[:, None] < spans[None, :, 1] + 2 * UNIT)
    free = ~near.any(1)
    spots = np.flatnonzero(free)
    count = rng.poisson(world.levels.hard_rate * len(spots) * clock.step / 60)
    if not count:
        return background
    start = clock.begin[rng.choice(spots, count)]
    events = np.stack([start, start + rng.uniform(1.0, 5.0, count)], axis=1)
    labels = rng.choice(present, count)
    kind = rng.choice(3, size=count, p=[0.35, 0.35, 0.30])  # run-up alone, aftermath alone, a whole look-alike
    phases = np.array([(0.0, 0.35), (0.65, 1.0), (0.0, 1.0)])[kind]
    for i in np.flatnonzero(kind == 2):
        labels[i] = rng.choice(world.peers[labels[i]] or [labels[i]])
    cover, action = _actions(world, clock, events, labels, shift, rng, phases)
    strength = (world.levels.hard_strength * free)[:, None]
    return (1 - strength * cover[:, None]) * background + strength * action


def jittered(spans: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Segments whose features do not begin and end exactly where annotators said; a core of 40 % is kept."""
    length = np.diff(spans, axis=1)
    moved = spans + jitter * length * rng.standard_normal(spans.shape)
    centre = moved.mean(1, keepdims=True)
    core = centre + 0.2 * length * np.array([-1.0, 1.0])
    return np.where(np.diff(moved, axis=1) < 0.4 * length, core, moved)


def _actions(
    world: World,
    clock: _Clock,
    spans: np.ndarray,
    labels: np.ndarray,
    shift: dict[int, _Shift],
    rng: np.random.Generator,
    phases: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each snippet is action [T], and the summed motion of all actions [T, MOTION].

    Args:
        spans: [N, 2] seconds.
        labels: [N] class indices.
        phases: [N, 2] first and last phase that is shown; all of 0..1 by default.
    """
    levels, count = world.levels, len(spans)
    if not count:
        return np.zeros(clock.length), np.zeros((clock.length, MOTION))
    phases = np.tile([0.0, 1.0], (count, 1)) if phases is None else phases
    start, end = spans[None, :, 0], spans[None, :, 1]
    along = np.clip((clock.centre[:, None] - start) / np.maximum(end - start, 1e-6), 0, 1)
    phase = phases[:, 0] + (phases[:, 1] - phases[:, 0]) * along  # [T, N]
    strength = 1 - levels.weak * rng.beta(1.2, 2.0, count)
    profile = 1 - levels.edge_drop * (2 * phase - 1) ** 2
    weight = _presence(clock, spans, levels.smooth) * strength * profile

    modes = np.array([rng.choice(MODES, p=shift[int(c)].modes) for c in labels])
    prototype = world.motion[labels, modes] + np.stack([shift[int(c)].motion for c in labels])
    prototype = prototype + levels.instance_shift * rng.standard_normal((count, MOTION))
    anchors = world.phase[labels]  # [N, 3, MOTION]
    nearness = (np.clip(1 - 2 * phase, 0, 1), 1 - np.abs(2 * phase - 1), np.clip(2 * phase - 1, 0, 1))
    action = weight @ prototype
    for k, near in enumerate(nearness):
        action += (weight * near) @ anchors[:, k]
    total = weight.sum(1)
    return np.minimum(total, 1), action / np.maximum(total, 1)[:, None]


def _presence(clock: _Clock, spans: np.ndarray, smooth: float) -> np.ndarray:
    """[T, N]: share of each snippet that each segment covers after Gaussian smoothing, in closed form."""
    sigma = 0.5 * smooth * UNIT

    def integral(seconds: np.ndarray) -> np.ndarray:
        """Of the smoothed step at 0, from minus infinity."""
        x = seconds / (sigma * np.sqrt(2))
        return 0.5 * seconds * (1 + erf(x)) + sigma / np.sqrt(2 * np.pi) * np.exp(-x * x)

    begin, end = clock.begin[:, None], clock.end[:, None]
    rise, fall = spans[None, :, 0], spans[None, :, 1]
    covered = integral(end - rise) - integral(begin - rise) - integral(end - fall) + integral(begin - fall)
    return np.clip(covered / (clock.end - clock.begin)[:, None], 0, 1)
