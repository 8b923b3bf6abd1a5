"""The cost of an attack: measured on calls of known cost, and every way of attacking gives the same images."""

from __future__ import annotations

import inspect

import pytest
import torch

from advfeat.attacks import pgd
from advfeat.bench import scaling, timing
from advfeat.bench.scaling import beside_plain, cost_lines, early_drop, plain_pgd, update_beside_copy
from advfeat.data import Dataset
from advfeat.engine import fused_steps
from advfeat.models import build_model
from advfeat.threats import L2

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return build_model("cnn4", width=8, seed=0).eval()


@pytest.fixture(scope="module")
def data():
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Dataset(images, torch.arange(12) % 10, tuple("abcdefghij"), "noise")


@pytest.mark.parametrize("targeted", [False, True])
def test_the_plain_loop_makes_the_images_of_the_engine(model, data, targeted):
    setting = {"steps": 3, "step_size": 0.3, "targeted": targeted}
    plain = plain_pgd(model, data.images, data.labels, L2(0.5), **setting)
    engine = pgd(model, data.images, data.labels, L2(0.5), **setting)
    # Three steps of 0.3 in float32 by two orders of the same sums; a flipped sign or a lost projection is off by 0.5.
    assert float((plain - engine).abs().max()) < 1e-4
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lines_count_what_was_asked_for(model, data, monkeypatch):
    calls = []

    def counted(_, images, *args, steps, **named):
        calls.append((len(images), steps))

    monkeypatch.setattr(scaling, "pgd", counted)
    monkeypatch.setattr(
        scaling.timing, "interleaved", lambda runs, **_: {name: [cost(run)] for name, run in runs.items()}
    )

    def cost(run):
        calls.clear()
        run()
        return sum(images * steps for images, steps in calls)

    found = cost_lines(model, data, L2(1), steps=(1, 2, 4), images=(4, 8, 10), batch_size=4, rounds=1, device=CPU)
    assert found["time_by_steps"] == [1, 2, 4]
    assert found["time_by_images"] == [1, 2, 2.5]
    assert timing.from_a_line(found["images"], found["time_by_images"]) < 1e-9
    assert found["steps"] == [1, 2, 4]
    assert found["images"] == [4, 8, 10]


def test_early_drop_must_not_change_an_answer(model, data, monkeypatch):
    ratio, stands = early_drop(model, data, L2(0.1), steps=2, rounds=1, device=CPU)
    assert ratio.median > 0
    assert stands.shape == (12,)
    monkeypatch.setattr(scaling, "withstands", lambda *_, early_drop, **__: torch.tensor([early_drop, True]))
    with pytest.raises(RuntimeError, match="changed 1 answers"):
        early_drop(model, data, L2(0.1), steps=2, rounds=1, device=CPU)


def test_ratios_are_slow_over_fast_and_not_the_reverse(model, data, monkeypatch):
    seconds = {"False": 6.0, "True": 1.5, "update": 2.0, "twin": 3.0, "copy": 1.0, "plain": 5.0, "engine": 2.5}

    def known(runs, **_):
        for run in runs.values():
            run()
        return {name: [seconds[name]] for name in runs}

    monkeypatch.setattr(scaling.timing, "interleaved", known)
    assert early_drop(model, data, L2(0.1), steps=1, rounds=1, device=CPU)[0].median == 4
    beside = update_beside_copy(CPU, count=4, rounds=1)
    assert (beside["copy"].median, beside["twin"].median) == (0.5, 1.5)
    assert beside_plain(model, data, L2(0.5), steps=1, step_size=0.3, rounds=1, device=CPU)[0].median == 2


def test_the_update_is_measured_beside_a_copy_and_its_twin():
    found = update_beside_copy(CPU, count=4, rounds=2)
    assert set(found) == {"copy", "twin"}
    assert all(ratio.median > 0 and ratio.pairs == 2 for ratio in found.values())


def test_twins_only_holds_within(monkeypatch):
    monkeypatch.setattr(fused_steps, "_has_triton", lambda: True)

    class OnGpu:
        is_cuda, dtype = True, torch.float32

    fused = inspect.unwrap(fused_steps._fused)  # a stand-in for a tensor has no shape to check
    assert fused(OnGpu())
    with fused_steps.twins_only():
        assert not fused(OnGpu())
    assert fused(OnGpu())


def test_beside_a_plain_loop_both_go_towards_the_labels(model, data):
    ratio, made = beside_plain(model, data, L2(0.5), steps=2, step_size=0.3, rounds=1, device=CPU)
    assert ratio.pairs == 1
    loss = torch.nn.functional.cross_entropy
    with torch.no_grad():
        before = float(loss(model(data.images), data.labels))
        assert all(float(loss(model(images), data.labels)) < before for images in made.values())
