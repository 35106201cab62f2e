"""HR-Pro's snippet model: attention over a video's snippets and a memory of class prototypes, before the snippet model.

Source: HR-Pro (AAAI 2024), "Reliable Prototype Construction" and eqs. 2 to 6, in the form its code runs: prototypes are
queries, too, and travel through all blocks.

Shapes: B videos, T snippets (padded), D input width, W embedding width, C classes, L tokens (snippets and prototypes of
all videos, one video after the other).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tad.methods.snippet.model import SnippetModel, SnippetScores, places, rows_of


class ReliabilityBlock(nn.Module):
    """Reliability-aware attention block: every token of a video attends to all of them; then a feed-forward layer.

    Args:
        dim: width D of the tokens.
        heads: attention heads; divides D.
        feedforward: hidden width of the feed-forward layer.
        attention_dropout: share of attention weights dropped in training; 0 allows kernels that never hold L x L.
        dropout: of both branches and of the hidden layer.
        double: queries and keys pass two linear maps, as published; one map spans the same functions.
    """

    def __init__(
        self, dim: int, heads: int, feedforward: int, attention_dropout: float, dropout: float, double: bool
    ) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.first = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2)) if double else None
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.output = nn.Linear(dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.feedforward = nn.Sequential(
            nn.Linear(dim, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, sizes: Sequence[int]) -> Tensor:
        """tokens [L, D] of several videos, `sizes` tokens each, to [L, D]."""
        into_query, into_key = (layer(tokens) for layer in self.first) if self.first is not None else (tokens, tokens)
        parts = (self.query(into_query), self.key(into_key), self.value(tokens))
        # [H, L, E]; each video attends to itself alone, so no row and no product is spent on padding.
        split = (part.unflatten(1, (self.heads, -1)).transpose(0, 1).split(list(sizes), dim=1) for part in parts)
        rate = self.attention_dropout if self.training else 0.0
        mixed = [
            F.scaled_dot_product_attention(query[None], key[None], value[None], dropout_p=rate)[0]
            for query, key, value in zip(*split, strict=True)
        ]
        attended = self.output(torch.cat(mixed, dim=1).transpose(0, 1).flatten(1))
        tokens = self.norms[0](tokens + self.dropout(attended))
        return torch.as_tensor(self.norms[1](tokens + self.dropout(self.feedforward(tokens))))


class HrproModel(nn.Module):
    """Attention blocks over features and prototypes, then the snippet model.

    Attributes:
        memory: [C, W] prototypes, zero until they are initialised; saved with the weights, not trained by gradient.
        seen: [C] videos that each prototype has learned from, -1 before the memory is initialised.

    Args:
        attention_layers: blocks; 0 leaves the snippet model and the memory for the contrast alone.
        heads, feedforward, attention_dropout, block_dropout, double_projection: see `ReliabilityBlock`.
        scrambled: feed prototypes in the published order, a reshape where a transposition was meant: token j then
            mixes entries of many prototypes.
        snippet: arguments of `SnippetModel`. The width must be D if there is a block: prototypes live in the embedding.
    """

    memory: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        attention_layers: int,
        heads: int,
        feedforward: int,
        attention_dropout: float,
        block_dropout: float,
        double_projection: bool,
        scrambled: bool,
        **snippet: int | float,
    ) -> None:
        super().__init__()
        dim, classes, width = int(snippet["dim"]), int(snippet["classes"]), int(snippet["width"])
        self.scrambled = scrambled
        self.blocks = nn.ModuleList(
            ReliabilityBlock(dim, heads, feedforward, attention_dropout, block_dropout, double_projection)
            for _ in range(attention_layers)
        )
        self.snippet = SnippetModel(**snippet)  # type: ignore[arg-type]
        self.register_buffer("memory", torch.zeros(classes, width))
        self.register_buffer("seen", torch.full((classes,), -1.0))

    def forward(self, features: Tensor, mask: Tensor) -> SnippetScores:
        """features [B, T, D] and mask [B, T] (False on padding) to scores."""
        place = places(mask)
        rows = rows_of(features, place)
        if len(self.blocks):
            rows = self._attend(rows, mask.sum(1).tolist())
        return self.snippet.of_rows(rows, place, mask)

    def _attend(self, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        """rows [N, D] of all videos through the blocks, with prototypes beside the rows of each video."""
        memory = self.memory.clone()  # updated in place after the forward pass, which autograd must not see
        prototypes = memory.reshape(memory.shape[1], memory.shape[0]).T if self.scrambled else memory
        tokens = torch.cat([part for video in rows.split(list(lengths)) for part in (video, prototypes)])
        sizes = [length + len(memory) for length in lengths]
        for block in self.blocks:
            tokens = block(tokens, sizes)
        return torch.cat([video[: -len(memory)] for video in tokens.split(sizes)])

    @torch.no_grad()
    def initialise(self, memory: Tensor) -> None:
        """Sets all prototypes, [C, W]."""
        self.memory.copy_(memory)
        self.seen.zero_()

    @torch.no_grad()
    def learn(self, sums: Tensor, videos: Tensor, momentum: float, warm: bool) -> None:
        """HR-Pro eq. 3, a whole batch at once and so regardless of the order of its videos.

        Args:
            sums: [C, W] sum, over the videos of all workers, of the mean embedding of a class's action rows.
            videos: [C] how many videos that is.
            momentum: what one video leaves of a prototype.
            warm: a prototype is the plain mean of what it has seen, as long as that forgets faster than momentum does.
        """
        share = 1 - momentum**videos
        if warm:
            share = torch.maximum(share, videos / (self.seen + videos).clamp(min=1))
        mean = sums / videos.clamp(min=1)[:, None]
        self.memory.lerp_(mean, share[:, None])
        self.seen += videos


def prototype_contrast(
    embedding: Tensor, action: Tensor, background: Tensor, memory: Tensor, temperature: float
) -> Tensor:
    """HR-Pro eq. 7 as its code has it: means over rows before the ratios, one term for each class of a video.

    Draws the action rows of a class to its prototype, away from the other prototypes, and background away from it.

    Args:
        embedding: [B, T, W].
        action: [B, T, C] bool, rows that count as action of a class.
        background: [B, T] bool.
        memory: [C, W]; not differentiated.
        temperature: of the cosine similarities.

    Returns:
        [B] mean over the video's classes; 0 for a video without action or background rows.
    """
    videos, _, classes = action.shape
    place = (action.any(-1) | background).flatten().nonzero()[:, 0]
    video = torch.div(place, action.shape[1], rounding_mode="floor")
    rows = F.normalize(embedding.flatten(0, 1).index_select(0, place), dim=-1)
    similarity = (rows @ F.normalize(memory.detach(), dim=-1).T / temperature).exp()

    def mean(members: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """[groups, C] mean similarity of the rows `members` in each group, and [groups] how many there are."""
        count = similarity.new_zeros(groups).index_add(0, group, similarity.new_ones(len(group)))
        sums = similarity.new_zeros(groups, classes).index_add(0, group, similarity[members])
        return sums / count.clamp(min=1)[:, None], count

    row, label = action.flatten(0, 1)[place].nonzero().unbind(1)
    to_all, count = mean(row, video[row] * classes + label, videos * classes)
    none = background.flatten()[place].nonzero()[:, 0]
    apart, none_count = mean(none, video[none], videos)
    own = to_all.view(videos, classes, classes).diagonal(dim1=1, dim2=2)
    use = (count.view(videos, classes) > 0) & (none_count > 0)[:, None]
    own = torch.where(use, own, 1.0)  # keeps the logarithms of unused entries finite
    every = torch.where(use, to_all.sum(-1).view(videos, classes), 1.0)
    term = -0.5 * (own / every).log() - 0.5 * (own / (own + apart)).log()
    return (term * use).sum(1) / use.sum(1).clamp(min=1)
