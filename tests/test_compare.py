"""A contest compares equal attacks only, says why it does not compare others, and goes on when one of them fails."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from advfeat.attacks import pgd
from advfeat.bench.compare import BARE, OURS, CaseResult, Contest, TimedCase, faults, share_left
from advfeat.bench.timing import Ratio
from advfeat.data import Dataset
from advfeat.threats import L2

CPU = torch.device("cpu")
CASE = TimedCase("resnet9", 16, 2, rounds=3)


SLEPT: list[float] = []


@pytest.fixture(autouse=True)
def a_clock_that_only_counts(monkeypatch):
    """One second from each look at the clock to the next, and the sleep of ``slow``: a busy machine ranks nobody."""
    looks = itertools.count(1)
    monkeypatch.setattr("advfeat.bench.timing.time.perf_counter", lambda: next(looks) + sum(SLEPT))
    yield
    SLEPT.clear()


def equal(setting):
    return lambda: pgd(
        setting.model, setting.images, setting.labels, L2(setting.eps), steps=setting.steps, step_size=setting.step_size
    )


def slow(setting):
    def attack():
        SLEPT.append(9.0)  # on the clock of ``a_clock_that_only_counts``
        return equal(setting)()

    return attack


def lazy(setting):
    return lambda: setting.images


def outside(setting):
    return lambda: setting.images + 3 * (equal(setting)() - setting.images)


def failing(setting):
    raise ImportError("no module of that name")


def failing_later(setting):
    def attack():
        raise RuntimeError("view size is not compatible\nwith the rest")

    return attack


def training(setting):
    def attack():
        adv = equal(setting)()
        setting.model.train()
        return adv

    return attack


MAKERS = {f.__name__: f for f in (equal, slow, lazy, outside, failing, failing_later, training)}


@pytest.fixture(scope="module")
def contest():
    return Contest(CPU, MAKERS, width=8)


def test_equal_attacks_are_ranked_by_their_time(contest):
    row = contest.compare("user", CASE, ["slow", "equal"])
    assert row.ranking == ["equal", "slow"]
    assert not row.void
    assert row.against("slow").least == 10
    assert {name: len(times) for name, times in row.times.items()} == {OURS: 3, "equal": 3, "slow": 2}
    assert row.robust["equal"] == row.robust[OURS] < 1


def test_unequal_attacks_are_void_and_the_others_stay(contest):
    row = contest.compare("user", CASE, list(MAKERS))
    assert set(row.void) == {"lazy", "outside", "failing", "failing_later"}
    assert row.void["lazy"].startswith("robust accuracy 100.0%, ours")
    assert "images outside the ball" in row.void["outside"]
    assert row.void["failing"] == "did not run: ImportError: no module of that name"
    assert row.void["failing_later"] == "did not run: RuntimeError: view size is not compatible"
    assert set(row.ranking) == {"equal", "slow", "training"}
    assert not contest.network("resnet9")[0].training, "left in training mode by a library"
    lines = list(row.lines())
    assert lines[0]["contender"] == OURS
    assert {line["contender"] for line in lines if line["void"]} == set(row.void)
    assert all("ratio" not in line for line in lines if line["void"])


def test_engine_only_is_measured_by_the_bare_forward_and_gradient(contest):
    row = contest.compare("engine", CASE, ["equal"])
    assert len(row.times[BARE]) == len(row.times[OURS]) == 3
    assert [line["contender"] for line in row.lines()] == [OURS, "equal", BARE]
    assert row.ranking == ["equal"], "the bare pass is no peer"


def test_the_network_that_a_peer_got_is_in_eval_mode_again():
    given = []

    def training_it(setting):
        given.append(setting.model)
        return training(setting)

    for comparison in ("user", "engine"):
        row = Contest(CPU, {"training": training_it}, width=8).compare(comparison, CASE, ["training"])
        assert row.ranking == ["training"], row.void
        assert not given[-1].training, comparison


def test_no_rounds_after_the_deadline(contest):
    row = contest.compare("user", CASE, ["equal"], deadline=time.monotonic() - 1)
    assert len(row.times["equal"]) == 2


def test_without_peers_only_we_are_timed(contest):
    row = contest.compare("user", CASE, [])
    assert set(row.times) == {OURS}
    assert row.ranking == []


def test_a_long_first_call_is_a_round(monkeypatch):
    monkeypatch.setattr("advfeat.bench.compare.WARM_SECONDS", 0.0)
    calls = []

    def counted(setting):
        run = equal(setting)
        return lambda: calls.append(1) or run()

    row = Contest(CPU, {"counted": counted}, width=8).compare("user", CASE, ["counted"])
    assert len(calls) == len(row.times["counted"]) == 3


def test_ratios_are_those_of_one_round():
    row = CaseResult(
        "engine", CASE, {OURS: [1.0, 2.0, 4.0], "equal": [2.0, 6.0], BARE: [1.0, 1.0, 2.0]}, {OURS: 0.5}, {}
    )
    assert row.against("equal") == Ratio.of([2.0, 6.0], [1.0, 2.0])
    assert row.over_bare().median == 2
    assert TimedCase("resnet18", 128, 3).name == "resnet18-l2-b128"


@pytest.fixture
def some():
    return Dataset(torch.full((1000, 3, 4, 4), 0.5), torch.zeros(1000).long(), ("a", "b"), "grey")


def test_robust_accuracies_may_differ_by_two_tenths_of_a_point(some):
    assert faults(some.images, some, L2(1), 0.502, 0.5) == ""
    assert faults(some.images, some, L2(1), 0.503, 0.5) == "robust accuracy 50.3%, ours 50.0%"
    few = some.subset(slice(0, 100))
    assert faults(few.images, few, L2(1), 0.51, 0.5) == "", "one image is the least that can be told apart"
    assert faults(few.images, few, L2(1), 0.52, 0.5)


def test_what_makes_a_time_say_nothing(some):
    assert faults(some.images + 0.2, some, L2(1), 0.5, 0.5) == "images outside the ball"
    assert faults(some.images + 0.6, some, L2(9), 0.5, 0.5) == "pixels outside the box"
    assert "outside the ball; pixels outside" in faults(some.images * float("nan"), some, L2(9), 0.5, 0.5)
    assert faults(some.images, some, L2(1), 0.0, 0.0) == "a robust accuracy of 0.0% does not tell attacks apart"


def test_the_labels_are_the_networks_own_answers(contest):
    model, data = contest.network("resnet9")
    assert share_left(model, data.images, data) == 1
    assert len(data.labels.unique()) > 2, "a network with one answer tells nothing"
