"""BMN's sampling and the convolution after it, sparse beside dense, at T = D = 100: `python -m benchmarks.studies.bmn`.

Both do the same: [T, 128] features to 512 channels of every proposal, forward and backward, one window, one thread.
Dense is the published form: a T x 32 x D x T mask, 32 samples of every cell, and a convolution that reduces them.
Times are CPU time (median); memory is what each allocates at most beyond its input, each in a process of its own.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.bmn.sampling import BoundaryMatching, sampling_taps, valid_cells

LENGTH, WIDTH, OUT, SAMPLES = 100, 128, 512, 32
RUNS = {"sparse": 5, "dense": 3}


class Dense(nn.Module):
    """The layer with its mask; gives the same numbers as `BoundaryMatching` on the valid cells."""

    def __init__(self) -> None:
        super().__init__()
        cells = valid_cells(LENGTH, LENGTH)
        taps = sampling_taps(cells, LENGTH, SAMPLES)
        mask = torch.zeros(LENGTH, SAMPLES, LENGTH, LENGTH)
        cell = np.repeat(np.arange(len(cells.start)), np.diff(taps.first, append=len(taps.column)))
        at = (taps.column // SAMPLES, taps.column % SAMPLES, cells.duration[cell], cells.start[cell])
        mask[at] = torch.from_numpy(taps.weight)
        self.register_buffer("mask", mask.reshape(LENGTH, -1))
        self.convolution = nn.Conv3d(WIDTH, OUT, (SAMPLES, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, 128] to [B, 512, D, T]."""
        sampled = x.transpose(1, 2) @ self.mask
        return self.convolution(sampled.view(len(x), WIDTH, SAMPLES, LENGTH, LENGTH))[:, :, 0]


def layer(kind: str) -> nn.Module:
    """One of the two with the same weights."""
    torch.manual_seed(0)
    sparse = BoundaryMatching(LENGTH, LENGTH, WIDTH, OUT, SAMPLES)
    if kind == "sparse":
        return sparse
    dense = Dense()
    with torch.no_grad():
        dense.convolution.weight.copy_(sparse.weight[..., None, None])
        dense.convolution.bias.copy_(sparse.bias)  # type: ignore[union-attr]
    return dense


def step(module: nn.Module) -> Callable[[], Tensor]:
    x = torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def run() -> Tensor:
        out: Tensor = module(x)
        out.square().sum().backward()
        return out

    return run


def measure(kind: str) -> None:
    """Prints seconds, mebibytes and the sum of the squared outputs on valid cells."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run, seconds = step(layer(kind)), []
    for _ in range(RUNS[kind]):
        start = time.process_time()
        out = run().detach()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if kind == "dense":
        cells = valid_cells(LENGTH, LENGTH)
        out = out[:, :, cells.duration, cells.start].transpose(1, 2)
    print(statistics.median(seconds), peak / 1024, float(out.double().square().sum()))


def main() -> None:
    found = {}
    for kind in RUNS:
        command = [sys.executable, "-m", "benchmarks.studies.bmn", kind]
        found[kind] = [float(x) for x in subprocess.run(command, capture_output=True, check=True).stdout.split()]
        print(f"{kind:8} {1000 * found[kind][0]:8.0f} ms {found[kind][1]:8.0f} MiB")
    sparse, dense = found["sparse"], found["dense"]
    if abs(sparse[2] - dense[2]) > 1e-4 * dense[2]:
        raise SystemExit(f"the two disagree: {sparse[2]} and {dense[2]}")
    print(f"ratio    {dense[0] / sparse[0]:8.1f} x  {dense[1] / sparse[1]:8.1f} x")


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(sys.argv[1])
    else:
        main()
