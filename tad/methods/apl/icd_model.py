"""APL's discriminator: the probability that two instances, each a vector of pooled input features, are of one class.

Source: APL (ECCV 2024), equations 9 and 10; the layers are rebuilt from the parameter counts that the paper prints.
Legend: N instances, M labelled instances, P pairs, D feature width, H hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 1 << 20
"""Numbers in the hidden layer at a time, so that they stay in the processor's cache."""


class InstanceDiscriminator(nn.Module):
    """w2 . relu(W1 [v_a; v_b] + b1) + b2, with W1 [v_a; v_b] computed as A v_a + B v_b.

    So every instance is multiplied once, whatever the number of its pairs.

    Args:
        dim: D.
        hidden: H; the paper's size is 128.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.dim = dim
        self.joint = nn.Linear(2 * dim, hidden)
        self.out = nn.Linear(hidden, 1)

    def first(self, vectors: Tensor) -> Tensor:
        """[N, D] to [N, H]: what instances bring to their pairs as the first of two, b1 included."""
        return F.linear(vectors, self.joint.weight[:, : self.dim], self.joint.bias)

    def second(self, vectors: Tensor) -> Tensor:
        """[N, D] to [N, H]: the same as the second of two."""
        return F.linear(vectors, self.joint.weight[:, self.dim :])

    def forward(self, vectors: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Logits [P] of the pairs (a, b), [P] rows of vectors [N, D] each."""
        logits: Tensor = self.out(torch.relu(self.first(vectors)[a] + self.second(vectors)[b]))
        return logits[:, 0]

    def similarity(self, first: Tensor, labels: Tensor, second: Tensor, bank_labels: Tensor) -> Tensor:
        """Mean probability of being alike with all labelled instances of the same class (Eq. 10).

        Args:
            first: [N, H] of `first`, the predicted instances; labels: [N] their classes.
            second: [M, H] of `second`, the labelled instances; bank_labels: [M] their classes.

        Returns:
            [N] float64; .5, which decides nothing, where the class has no labelled instance.
        """
        similarity = torch.full((len(first),), 0.5, dtype=torch.float64, device=first.device)
        for label in labels.unique():
            of_class = second[bank_labels == label]
            if not len(of_class):
                continue
            rows = (labels == label).nonzero()[:, 0]
            for part in rows.split(max(1, BLOCK // of_class.numel())):
                hidden = (first[part][:, None] + of_class).relu_()
                similarity[part] = self.out(hidden)[..., 0].double().sigmoid().mean(1)
        return similarity
