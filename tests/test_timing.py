"""Ratios and lines against hand computations, the order of turns, and the counts of arithmetic."""

from __future__ import annotations

import mmap
import time

import pytest
import torch
from torch import nn

from advfeat.attacks import pgd
from advfeat.bench import timing
from advfeat.bench.timing import Ratio, breakdown, from_a_line, interleaved, machine_rates, peak_memory
from advfeat.estimates import Estimate
from advfeat.models import build_model, freeze
from advfeat.threats import L2

CPU = torch.device("cpu")


def test_a_ratio_pairs_the_runs_of_one_round():
    # The machine slows down threefold between the rounds. Medians of each alone would give 4 / 3; the pairs say 2.
    ratio = Ratio.of([2.0, 4.0, 12.0], [1.0, 2.0, 6.0])
    assert (ratio.median, ratio.lower, ratio.upper, ratio.least, ratio.most, ratio.pairs) == (2, 2, 2, 2, 2, 3)
    ratio = Ratio.of([1.0, 2.0, 3.0, 4.0, 10.0], [1.0] * 5)
    assert (ratio.median, ratio.lower, ratio.upper, ratio.least, ratio.most) == (3, 2, 4, 1, 10)
    assert str(ratio) == "3.00 [2.00, 4.00]"
    # The interval of a record is the whole range, and no share of images: quartiles would claim too much.
    assert ratio.estimate() == Estimate(3, 1, 10, 5, rate=False)
    assert Ratio.of([3.0], [2.0]) == Ratio(1.5, 1.5, 1.5, 1.5, 1.5, 1)


@pytest.mark.parametrize(("times", "base"), [([1.0], [1.0, 2.0]), ([], [])])
def test_runs_without_partners_are_refused(times, base):
    with pytest.raises(ValueError, match=f"got {len(times)} and {len(base)}"):
        Ratio.of(times, base)


def test_contenders_take_turns_and_the_order_turns_round():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in "abc"}
    times = interleaved(runs, rounds=3, device=CPU)
    assert "".join(called) == "abc" + "abc" + "cba" + "abc"  # the first call of each is not timed
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_after_the_deadline_only_the_first_round_runs():
    times = interleaved({"a": lambda: None}, rounds=5, device=CPU, deadline=time.monotonic() - 1)
    assert len(times["a"]) == 1


def test_what_is_timed_is_the_call():
    times = interleaved({"short": lambda: None, "long": lambda: time.sleep(0.05)}, rounds=2, device=CPU)
    assert min(times["long"]) >= 0.05
    assert min(times["short"]) < 0.05


def test_the_distance_from_a_line():
    assert from_a_line([1, 2, 3, 4], [3, 5, 7, 9]) == pytest.approx(0, abs=1e-12)
    # By hand: least squares through (0, 1), (1, 2), (2, 6) is 1/2 + 5/2 x; the worst is 2 where the line says 3.
    assert from_a_line([0, 1, 2], [1, 2, 6]) == pytest.approx(1.0, abs=1e-12)  # at 0: 1 where the line says 1/2
    # Quadratic cost is no line.
    assert from_a_line([1, 2, 4, 8], [1, 4, 16, 64]) > 0.3


def test_peak_memory_sees_what_is_freed_again():
    def hungry():
        # A mapping of its own: from the heap it could be memory that the process has held all along.
        torch.frombuffer(mmap.mmap(-1, 64 * 2**20), dtype=torch.uint8).fill_(1)

    before = peak_memory(lambda: None, CPU)
    assert 50 * 2**20 <= peak_memory(hungry, CPU) - before <= 200 * 2**20


def test_a_breakdown_counts_the_operations_of_the_network():
    # A convolution of 3·3·3 weights per value of 4 · 8 · 8, a matrix product of 4 by 10; 2 images, forward and back.
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    ).eval()
    network.requires_grad_(False)
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    asked = []
    found = breakdown(network, images, labels, lambda steps: asked.append(steps), steps=3, rounds=1)
    assert found.operations == 2 * 2 * 2 * (4 * 8 * 8 * 27 + 10 * 4)
    assert found.step_bytes == 4 * 2 * 3 * 8 * 8 * 4
    assert asked == [3, 3]
    assert min(found.network, found.convolutions, found.step) > 0


def test_the_parts_of_a_real_step_are_parts():
    model = freeze(build_model("resnet9", width=16, seed=0), dtype=torch.float32)
    images, labels = torch.rand(8, 3, 32, 32), torch.zeros(8).long()

    def attack(steps):
        pgd(model, images, labels, L2(0.5), steps=steps, step_size=0.1)

    found = breakdown(model, images, labels, attack, steps=2, rounds=3)
    # A part of the work cannot take several times as long as the whole, nor the whole many times its parts.
    assert 0 < found.convolutions < 3 * found.network
    assert found.network < 3 * found.total
    assert found.total < 20 * (found.network + found.step)


def test_rates_of_the_machine_are_plausible():
    rates = machine_rates(CPU, torch.float32, rounds=1)
    assert 1e8 < rates.matrix < 1e16
    assert 1e7 < rates.copy < 1e14


def test_the_least_work_of_an_attack_has_no_update(monkeypatch):
    calls = []
    model = freeze(build_model("cnn4", width=8, seed=0), dtype=torch.float32)
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    images = torch.rand(2, 3, 32, 32)
    before = images.clone()
    timing.bare(model, images, torch.tensor([0, 1]), steps=4)()
    assert len(calls) == 4
    assert torch.equal(images, before)
