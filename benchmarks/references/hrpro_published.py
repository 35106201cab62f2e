"""HR-Pro the way its published code goes about it: what `benchmarks.studies.hrpro` measures tad beside.

One video at a time and Python loops: attention that returns its maps after a double projection, losses video by video
with one backward pass for all, a loop over thresholds and runs for the candidates, over points and draws for the
ranking, and an instance stage that pools every proposal of a video, twice in training. Where a choice was open the
quicker one was taken, so ratios are cautious. Source: HR-Pro (AAAI 2024), with the constants of its THUMOS14 set-up.

Shapes: T snippets, D feature width, C classes, N proposals, K points.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tad.ops.roi import roi_align

SCALE, BINS, EXTENSION, MOST = 2, 12, 0.25, 1000
CAS_THRESHOLDS = [round(0.025 * i, 6) for i in range(10)]
ACTIONNESS_THRESHOLDS = [round(0.5 + 0.025 * i, 6) for i in range(9)]


# -- stage 1 ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention block; `unused` has weights and no purpose, as published."""

    def __init__(self, dim: int, heads: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self.query, self.key, self.unused = (nn.Conv1d(dim, dim, 1) for _ in range(3))
        self.attention = nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.feedforward = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(0.3)

    def forward(self, tokens: Tensor) -> Tensor:
        """[1, L, D] to [1, L, D]."""
        line = tokens.transpose(1, 2)
        query, key = self.query(line).transpose(1, 2), self.key(line).transpose(1, 2)
        mixed, _ = self.attention(query, key, tokens, need_weights=True)
        tokens = self.norms[0](tokens + self.dropout(mixed))
        return torch.as_tensor(self.norms[1](tokens + self.dropout(self.feedforward(tokens))))


class SnippetNet(nn.Module):
    """Two blocks over snippets and prototypes, a convolution and a classifier of C classes and background."""

    memory: Tensor

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim) for _ in range(2))
        self.embedding = nn.Conv1d(dim, dim, 3, padding=1)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Conv1d(dim, classes + 1, 1, bias=False)
        self.register_buffer("memory", torch.zeros(classes, dim))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features [T, D] to embedding [T, D], class scores [T, C] and background scores [T]."""
        classes, dim = self.memory.shape
        tokens = torch.cat([features, self.memory.reshape(dim, classes).T])[None]
        for block in self.blocks:
            tokens = block(tokens)
        embedding = torch.relu(self.embedding(tokens[:, : len(features)].transpose(1, 2)))
        scores = torch.sigmoid(self.classifier(self.dropout(embedding)))[0].T
        return embedding[0].T, scores[:, :-1], scores[:, -1]


class LabelledVideo(NamedTuple):
    """A training video: features [T, D] and the classes of each row's points [T, C] bool."""

    features: Tensor
    points: np.ndarray


def select_seeds(background: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo action [T, C] and background [T] rows, gap after gap, from background scores [T] and points [T, C]."""
    rows, length = np.flatnonzero(points.any(1)), len(background)
    action, empty = points.copy(), np.zeros(length, dtype=bool)
    if not len(rows):
        return action, empty
    first, last = rows[0], rows[-1]
    if first > 0:
        part = background[:first]
        hits = np.flatnonzero(part >= 0.95)
        empty[: (hits[-1] if len(hits) else part.argmax()) + 1] = True
    if last < length - 1:
        part = background[last + 1 :]
        hits = np.flatnonzero(part >= 0.95)
        empty[last + 1 + (hits[0] if len(hits) else part.argmax()) :] = True
    for left, right in pairwise(rows):
        if right - left > 1:
            part = background[left + 1 : right]
            hits = np.flatnonzero(part >= 0.95)
            span = (hits[0], hits[-1]) if len(hits) > 1 else (part.argmax(), part.argmax())
            empty[left + 1 + span[0] : left + 2 + span[1]] = True
    for point, stop in pairwise([*rows, length]):
        t = point + 1
        while t < stop and background[t] <= 0.1 and not empty[t]:
            action[t] = points[point]
            t += 1
    for stop, point in pairwise([-1, *rows]):
        t = point - 1
        while t > stop and background[t] <= 0.1 and not empty[t]:
            action[t] = points[point]
            t -= 1
    return action, empty


def snippet_step(model: SnippetNet, optimiser: torch.optim.Optimizer, videos: list[LabelledVideo]) -> None:
    """One training step: the losses of every video in turn, one backward pass for their mean."""
    losses = []
    for features, points in videos:
        embedding, classes, background = model(features)
        action, empty = select_seeds(background.detach().numpy(), points)
        output = torch.cat([classes * (1 - background[:, None]), background[:, None]], dim=1)
        target = torch.zeros_like(output)
        target[:, :-1] = torch.from_numpy(points)
        rows = torch.from_numpy(points.any(1))
        loss = 0.5 * focal(output[rows], target[rows])
        rows = torch.from_numpy(empty)
        target = torch.zeros_like(output[rows])
        target[:, -1] = 1
        loss = loss + focal(output[rows], target)
        losses.append(loss + contrast(embedding, action, empty, model.memory))
        with torch.no_grad():
            for label in np.flatnonzero(points.any(0)):
                mean = embedding[torch.from_numpy(action[:, label])].mean(0)
                model.memory[label] = 0.999 * model.memory[label] + 0.001 * mean
    total = torch.stack(losses).mean()
    optimiser.zero_grad()
    total.backward()
    optimiser.step()


def focal(output: Tensor, target: Tensor) -> Tensor:
    """Focal binary cross-entropy of [N, C + 1], summed over outputs, mean over rows."""
    weight = torch.where(target > 0, 1 - output, output) ** 2
    entropy = F.binary_cross_entropy(output, target, reduction="none")
    return (weight * entropy).sum() / (len(output) + 1e-6)


def contrast(embedding: Tensor, action: np.ndarray, empty: np.ndarray, memory: Tensor) -> Tensor:
    """Contrast of one video's action rows with the prototypes, class by class."""
    labels = np.flatnonzero(action.any(0))
    if not len(labels) or not empty.any():
        return embedding.new_zeros(())
    prototypes = F.normalize(memory.clone(), dim=1)
    apart = F.normalize(embedding[torch.from_numpy(empty)], dim=1)
    terms = []
    for label in labels:
        rows = F.normalize(embedding[torch.from_numpy(action[:, label])], dim=1)
        near = (rows @ prototypes.T / 0.1).exp().mean(0)
        none = (apart @ prototypes[label] / 0.1).exp().mean()
        terms.append(-0.5 * (near[label] / near.sum()).log() - 0.5 * (near[label] / (near[label] + none)).log())
    return torch.stack(terms).mean()


@torch.no_grad()
def first_memory(model: SnippetNet, videos: list[LabelledVideo]) -> None:
    """Prototypes from the untrained network's embedding of the labelled rows."""
    model.eval()
    rows: list[list[Tensor]] = [[] for _ in range(len(model.memory))]
    for features, points in videos:
        embedding = model(features)[0]
        for row, label in zip(*np.nonzero(points), strict=True):
            rows[label].append(embedding[row])
    for label, found in enumerate(rows):
        if found:
            model.memory[label] = torch.stack(found).mean(0)
    model.train()


# -- candidates ------------------------------------------------------------------------------------------------------


class Proposal(NamedTuple):
    """A segment of one class, edges in seconds."""

    label: int
    score: float
    start: float
    end: float


def groups(indices: np.ndarray) -> list[np.ndarray]:
    """Stretches of consecutive indices."""
    return np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)


def candidate_proposals(cas: np.ndarray, background: np.ndarray, video: np.ndarray, snippet: float) -> list[Proposal]:
    """All runs over all thresholds, class by class, scored one by one; from [T, C], [T] and [C].

    A snippet lasts `snippet` seconds.
    """
    step = snippet / SCALE
    labels = np.flatnonzero(video >= 0.5)
    if not len(labels):
        labels = np.array([video.argmax()])
    curves, shared = interpolated(cas[:, labels]), interpolated(1 - background)
    found: list[Proposal] = []
    for label, curve in zip(labels.tolist(), curves.T, strict=True):
        for threshold in CAS_THRESHOLDS:
            zeroed = np.where(curve < threshold, 0, curve)
            found += contrasts(label, zeroed, np.flatnonzero(zeroed > 0), step)
        for threshold in ACTIONNESS_THRESHOLDS:
            found += contrasts(label, curve, np.flatnonzero(shared >= threshold), step)
    return found


def contrasts(label: int, curve: np.ndarray, indices: np.ndarray, step: float) -> list[Proposal]:
    """Outer-inner contrast of each run among the indices, one at a time; samples are `step` seconds apart."""
    found = []
    for run in groups(indices) if len(indices) else []:
        first, last = int(run[0]), int(run[-1])
        length = last - first + 1
        left = list(range(max(0, int(np.floor(first - length / 4))), first))
        right = list(range(last + 1, min(len(curve) - 1, int(np.floor(last + length / 4))) + 1))
        outside = left + right
        score = float(np.mean(curve[run])) - (float(np.mean(curve[outside])) if outside else 0.0)
        found.append(Proposal(label, score, first * step, (last + 1) * step))
    return found


def interpolated(curve: np.ndarray) -> np.ndarray:
    """[T, ...] at SCALE times the rate; the last samples are extrapolated."""
    curve = curve.astype(np.float64)
    if len(curve) == 1:
        return np.repeat(curve, SCALE, axis=0)
    place = np.arange(SCALE * len(curve)) / SCALE
    left = np.minimum(place.astype(np.int64), len(curve) - 2)
    share = (place - left).reshape((-1,) + (1,) * (curve.ndim - 1))
    return np.asarray(curve[left] * (1 - share) + curve[left + 1] * share)


# -- ranking ---------------------------------------------------------------------------------------------------------


def reliable(times: np.ndarray, labels: np.ndarray, proposals: list[Proposal]) -> list[Proposal | None]:
    """For each point (ascending times [K] in seconds) the best proposal of its class that reaches no other point."""
    by_class: dict[int, list[Proposal]] = {}
    for proposal in proposals:
        by_class.setdefault(proposal.label, []).append(proposal)
    chosen: list[Proposal | None] = []
    for i, time in enumerate(times):
        before = times[i - 1] if i else -np.inf
        after = times[i + 1] if i + 1 < len(times) else np.inf
        alone = around = None
        for proposal in by_class.get(int(labels[i]), []):
            if proposal.start <= time <= proposal.end and proposal.score > 0:
                if around is None or proposal.score > around.score:
                    around = proposal
                reaches = proposal.start <= before or proposal.end >= after
                if not reaches and (alone is None or proposal.score > alone.score):
                    alone = proposal
        chosen.append(alone or around)
    return chosen


def negatives(background: np.ndarray, points: np.ndarray, count: int, rng: np.random.Generator) -> list[list[int]]:
    """`count` random pieces of the background rows, drawn until enough are accepted."""
    rows = np.flatnonzero(select_seeds(background, points)[1])
    if not len(rows):
        return []
    runs = groups(rows)
    # With runs of two rows alone nothing would ever be accepted.
    whole = all(len(run) == 2 for run in runs)
    found: list[list[int]] = []
    while len(found) < count:
        run = runs[int(rng.integers(len(runs)))]
        first, last = int(run[0]), int(run[-1])
        if len(run) == 1 or whole:
            found.append([first, first + 1])
            continue
        start = int(rng.uniform(first, last))
        end = int(rng.uniform(start, last))
        if start < end:
            found.append([start, end])
    return found


# -- stage 2 ---------------------------------------------------------------------------------------------------------


class InstanceNet(nn.Module):
    """Completeness score and boundary offsets of proposals; spans are in snippets."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.score = nn.Sequential(
            nn.Linear(3 * dim, dim), nn.ReLU(), nn.Dropout(0.7), nn.Linear(dim, half), nn.ReLU(), nn.Linear(half, 1)
        )
        self.start, self.end = (nn.Sequential(nn.Linear(dim, half), nn.ReLU(), nn.Linear(half, 1)) for _ in range(2))

    def forward(self, features: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
        """features [T, D] and spans [N, 2] to scores [N] and refined spans [N, 2]."""
        before, inside, after = pooled(features, spans)
        score = torch.sigmoid(self.score(torch.cat([inside - before, inside, inside - after], dim=1)))[:, 0]
        offsets = torch.cat([self.start(before), self.end(after)], dim=1)
        return score, spans + (spans[:, 1:] - spans[:, :1]) * offsets


def pooled(features: Tensor, spans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N, D] each: the quarter before every span, the span, the quarter after it."""
    reach = EXTENSION * (spans[:, 1] - spans[:, 0])
    rows = int(reach.abs().max().ceil()) + 1
    padded = F.pad(features, (0, 0, rows, rows))
    rois = torch.stack([spans[:, 0] - reach, spans[:, 1] + reach], dim=1) + rows - 0.5
    bins = roi_align(padded, rois, BINS)
    return bins[:, :, :2].amax(2), bins[:, :, 2:10].amax(2), bins[:, :, 10:].amax(2)


def overlaps(spans: Tensor, targets: Tensor) -> Tensor:
    """[N] largest tIoU of each span with a target."""
    start = torch.maximum(spans[:, None, 0], targets[None, :, 0])
    end = torch.minimum(spans[:, None, 1], targets[None, :, 1])
    inter = (end - start).clamp(min=0)
    union = (spans[:, 1] - spans[:, 0])[:, None] + (targets[:, 1] - targets[:, 0])[None] - inter
    return (inter / union.clamp(min=1e-6)).amax(1)


def instance_step(
    model: InstanceNet,
    optimiser: torch.optim.Optimizer,
    videos: list[tuple[Tensor, Tensor, Tensor]],
    rng: np.random.Generator,
) -> None:
    """One training step over (features [T, D], proposals [N, 2], reliable ones [K, 2]) of several videos."""
    losses = []
    for features, spans, targets in videos:
        if len(spans) > MOST:
            spans = spans[torch.from_numpy(rng.permutation(len(spans))[:MOST])]
        score, refined = model(features, spans)
        # As published: the refined spans are pooled and scored as well, and the result is not used.
        model(features, refined.detach())
        aim = overlaps(spans, targets)
        positive = aim >= 0.3
        count = int(positive.sum())
        if not count:
            continue
        share = count / max(1, len(aim) - count)
        use = positive | (torch.from_numpy(rng.random(len(aim))) < share)
        reached = overlaps(refined[positive], targets)
        losses.append(F.smooth_l1_loss(score[use], aim[use]) + F.smooth_l1_loss(reached, torch.ones_like(reached)))
    total = torch.stack(losses).mean()
    optimiser.zero_grad()
    total.backward()
    optimiser.step()


# -- inference -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def curves(model: SnippetNet, features: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """cas [T, C], background [T] and video scores [C] of one video."""
    _, classes, background = model(features)
    video = classes.topk(max(1, len(features) // 8), dim=0).values.mean(0)
    return (classes * (1 - background[:, None])).numpy(), background.numpy(), video.numpy()


@torch.no_grad()
def detections(model: InstanceNet, features: Tensor, proposals: list[Proposal], snippet: float) -> list[Proposal]:
    """The proposals and their refinements, suppressed class by class; a snippet lasts `snippet` seconds."""
    spans = torch.tensor([[p.start, p.end] for p in proposals], dtype=torch.float32) / snippet
    score, refined = model(features, spans)
    again, _ = model(features, refined)
    contrast_score = np.array([p.score for p in proposals])
    labels = np.array([p.label for p in proposals])
    both = np.concatenate([spans.numpy(), refined.numpy()]) * snippet
    scores = np.concatenate([contrast_score + score.numpy(), contrast_score + again.numpy()])
    labels = np.concatenate([labels, labels])
    kept: list[Proposal] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        kept += soft_nms(int(label), both[rows], scores[rows])
    return kept


def soft_nms(label: int, spans: np.ndarray, scores: np.ndarray) -> list[Proposal]:
    """Gaussian suppression of one class that takes seconds for pixels and drops nothing."""
    kept = []
    spans, scores = spans.copy(), scores.copy()
    while len(spans):
        top = int(scores.argmax())
        start, end = spans[top]
        kept.append(Proposal(label, float(scores[top]), float(start), float(end)))
        spans, scores = np.delete(spans, top, axis=0), np.delete(scores, top)
        inter = np.maximum(0, np.minimum(end, spans[:, 1]) - np.maximum(start, spans[:, 0]) + 1)
        union = (end - start + 1) + (spans[:, 1] - spans[:, 0] + 1) - inter
        scores = scores * np.exp(-((inter / union) ** 2) / 0.3)
    return kept
