"""The GPU benchmark runs, on a CPU and small: tables whose numbers are those of real trainings."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from benchmarks.speed import gpu


def test_every_part_runs_and_says_what_it_found(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--tiny", "--no-compile"])
    gpu.main()
    said = capsys.readouterr().out
    losses = re.findall(r"^\| ([\w, -]+) \| ([\d.]+) ([\d.]+) \| ([\d.]+) ([\d.]+) \| 0.0e\+00 \|$", said, re.M)
    assert [row[0] for row in losses] == ["ActionFormer", "HR-Pro, stage 1", "BMN"]
    assert all(row[1:3] == row[3:5] and row[1] != row[2] for row in losses), "the same device, and it learns"
    rates = re.findall(r"^\| ([\w, -]+) \| (\w+) \| ([\d.]+) \|", said, re.M)
    assert len(rates) == 9 and all(float(rate) > 0 for _, _, rate in rates)
    assert re.search(r"`tad run pser --local --precision fp32`: \d+ s", said)


def test_devices_that_differ_end_it_with_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "parity", "--device", "cpu", "--tiny"])
    monkeypatch.setattr(gpu, "outputs_apart", lambda *_: 0.1)
    with pytest.raises(SystemExit, match="the devices differ"):
        gpu.main()
    monkeypatch.setattr(sys, "argv", ["gpu", "everything"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no part everything; there are steps, parity, pipeline" in capsys.readouterr().err
    assert torch.get_float32_matmul_precision() == "highest"
