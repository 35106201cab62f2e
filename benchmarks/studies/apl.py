"""Speed of APL's parts on one core: `python -m benchmarks.studies.apl`.

The discriminator beside a plain loop: 180 videos with 200 predictions each against 600 labelled instances of 20
classes, 2048 features. Every prediction is compared with all instances of its class, over a million pairs. The loop
asks the network pair by pair; it runs over a hundredth of the predictions, and its time counts a hundredfold. Training
steps with contrast beside plain ones: see benchmarks/studies/apl_steps.py. CPU time, one thread.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.common.timing_engine import cpu
from benchmarks.studies.apl_steps import BAR, steps
from tad.methods.apl.icd_model import InstanceDiscriminator

PREDICTIONS, INSTANCES, CLASSES, DIM = 180 * 200, 600, 20, 2048
PART = 100


def similarity() -> tuple[float, float]:
    """CPU seconds of all similarities at once, and of the loop over pairs.

    Raises:
        SystemExit: the two disagree.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = InstanceDiscriminator(DIM).eval()
    vectors, bank = torch.rand(PREDICTIONS, DIM), torch.rand(INSTANCES, DIM)
    labels, bank_labels = torch.randint(CLASSES, (PREDICTIONS,)), torch.randint(CLASSES, (INSTANCES,))

    def at_once() -> torch.Tensor:
        return model.similarity(model.first(vectors), labels, model.second(bank), bank_labels)

    def pair_by_pair() -> torch.Tensor:
        found = []
        for vector, label in zip(vectors[::PART], labels[::PART], strict=True):
            pairs = [torch.cat([vector, other]) for other in bank[bank_labels == label]]
            found.append(sum(model.out(model.joint(pair).relu()).sigmoid().item() for pair in pairs) / len(pairs))
        return torch.tensor(found, dtype=torch.float64)

    with torch.inference_mode():
        at_once()
        fast, found = cpu(at_once)
        slow, want = cpu(pair_by_pair)
    if not torch.allclose(found[::PART], want, atol=1e-5):
        raise SystemExit("the similarities are not what the loop gives")
    return fast, slow * PART


def main() -> None:
    fast, slow = similarity()
    print(f"similarity of {PREDICTIONS:,} predictions: {fast:.2f} s at once, {slow:.0f} s by pairs, {slow / fast:.0f}x")
    with tempfile.TemporaryDirectory() as folder:
        seconds = steps(Path(folder) / "data")
    plain = seconds["detector"]
    for name, step in seconds.items():
        ratio = step / plain
        print(f"step, {name}: {step:.2f} s, x{ratio:.2f} (bar x{BAR}; {'met' if ratio <= BAR else 'MISSED'})")


if __name__ == "__main__":
    main()
