"""Estimates against the formula, and accuracies of a linear model whose worst image is known."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advfeat import robustness
from advfeat.attacks import fgsm, pgd
from advfeat.data import Dataset
from advfeat.estimates import Estimate, correlation_of, leaving_one_out
from advfeat.measures import accuracy, predictions, signal_kept
from advfeat.models import Classifier, build_model, freeze
from advfeat.robustness import robust_accuracy, withstands
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers

SIZE = 4


@pytest.fixture
def linear() -> Classifier:
    """Class 1 where the mean of the pixels is above 1/2: logits (0, 40 · (mean − 1/2))."""
    model = Classifier(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    count = 3 * SIZE * SIZE
    with torch.no_grad():
        # The network sees (x - mean) / std, so its weights carry std and its bias the mean.
        per_pixel = model.std.expand(1, 3, SIZE, SIZE).flatten() * 40 / count
        model.head.weight.copy_(torch.stack([torch.zeros(count), per_pixel]))
        offset = float(model.mean.mean()) * 40 - 20
        model.head.bias.copy_(torch.tensor([0.0, offset]))
    return model.eval()


@pytest.fixture
def levels() -> Dataset:
    """Flat images at different distances from 1/2, labelled by their side; the last two labels are wrong."""
    means = torch.tensor([0.5 + s * d for d in (0.01, 0.03, 0.05, 0.07, 0.09, 0.11) for s in (-1, 1)] + [0.4, 0.6])
    labels = (means > 0.5).long()
    labels[-2:] = 1 - labels[-2:]
    return Dataset(means.view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE).clone(), labels, ("dark", "light"), "levels")


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_rate_has_the_wilson_interval(case):
    hits, n = case
    estimate = Estimate.of_rate(hits, n)
    z, p = 1.959963984540054, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert estimate.value == p
    assert estimate.n == n
    assert estimate.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert estimate.high == pytest.approx(min(1, centre + half), abs=1e-12)
    assert 0 <= estimate.low <= p <= estimate.high <= 1


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_a_rate_that_is_none_is_refused(hits, n):
    with pytest.raises(ValueError, match=f"hits={hits}, n={n}"):
        Estimate.of_rate(hits, n)


def test_an_estimate_prints_in_percent():
    assert str(Estimate(0.5, 0.25, 0.75, 10)) == "50.0% [25.0%, 75.0%]"


def test_an_estimate_that_is_no_rate_prints_as_a_number():
    assert str(Estimate(-2.25, -2.5, -2.0, 10, rate=False)) == "-2.250 [-2.500, -2.000]"
    assert f"{Estimate(0.1, -0.004, 0.204, 10, rate=False):.2f}" == "0.10 [0.00, 0.20]"
    assert f"{Estimate(0.5, 0.25, 0.75, 10):.2f}" == "0.50 [0.25, 0.75]"
    for spec, text in ((">6.2f", "  0.50 [  0.25,   0.75]"), ("+.1f", "+0.5 [+0.2, +0.8]"), ("z.1f", "0.5 [0.2, 0.8]")):
        assert format(Estimate(0.5, 0.25, 0.75, 10), spec) == text


def test_a_mean_has_the_interval_of_student():
    # By hand: mean 2, s² = (1 + 0 + 1) / 2 = 1, t(0.975, 2) = 0.95 √(2 / 0.0975). No normal quantile, no s by 1/n.
    estimate = Estimate.of_mean(torch.tensor([1.0, 2.0, 3.0]))
    half = 0.95 * math.sqrt(2 / 0.0975) / math.sqrt(3)
    assert estimate.value == 2
    assert estimate.low == pytest.approx(2 - half, abs=1e-12)
    assert estimate.high == pytest.approx(2 + half, abs=1e-12)
    assert (estimate.n, estimate.rate) == (3, False)


def test_a_mean_far_from_zero_keeps_its_digits():
    # In float32 a sum of 100,000 values near 1000 is off by far more than their spread.
    values = 1000 + torch.linspace(-1, 1, 100_001)
    assert Estimate.of_mean(values).value == pytest.approx(1000, abs=1e-5)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.nan], [1.0, math.inf]])
def test_a_mean_that_has_no_interval_is_refused(values):
    with pytest.raises(ValueError, match="two or more finite values"):
        Estimate.of_mean(torch.tensor(values))


@pytest.mark.parametrize("batch_size", [1, 5, 500])
def test_accuracy_counts_right_answers(linear, levels, batch_size):
    assert accuracy(linear, levels, batch_size=batch_size) == Estimate.of_rate(12, 14)
    answers = predictions(linear, levels, batch_size=batch_size)
    assert answers.tolist() == [0, 1] * 7


def test_accuracy_is_measured_in_eval_mode_and_leaves_the_mode(linear, levels):
    linear.train()
    assert accuracy(linear, levels).value == 12 / 14
    assert linear.training


@pytest.mark.parametrize("batch_size", [3, 500])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(("eps", "left"), [(0.02, 10), (0.06, 6), (0.1, 2), (0.2, 0)])
def test_robust_accuracy_of_a_linear_model(linear, levels, eps, left, steps, batch_size):
    # The worst image in the cube moves the mean by eps; in the ball of radius eps * sqrt(48) too, all pixels alike.
    # The distances 0.01, 0.03, … keep half a step of 0.02 from every eps, which no rounding bridges.
    expected = Estimate.of_rate(left, 14)
    count = 3 * SIZE * SIZE
    for threat in (Linf(eps), L2(eps * math.sqrt(count))):
        assert robust_accuracy(linear, levels, threat, steps=steps, batch_size=batch_size) == expected


def test_no_radius_or_no_step_is_plain_accuracy(linear, levels):
    assert robust_accuracy(linear, levels, L2(0.0), steps=5) == accuracy(linear, levels)
    assert robust_accuracy(linear, levels, L2(0.0), steps=1, step_size=0.0) == accuracy(linear, levels)
    assert robust_accuracy(linear, levels, L2(0.5), steps=0) == accuracy(linear, levels)


def test_the_step_is_that_of_the_paper_unless_given(linear, levels, monkeypatch):
    used = []
    real = robustness.pgd

    def watched(*args, **kwargs):
        used.append(kwargs["step_size"])
        return real(*args, **kwargs)

    monkeypatch.setattr(robustness, "pgd", watched)
    robust_accuracy(linear, levels, L2(0.5), steps=20)
    robust_accuracy(linear, levels, L2(0.5), steps=20, step_size=0.1)
    assert set(used) == {2.5 * 0.5 / 20, 0.1}


def test_bad_steps_are_refused(linear, levels):
    with pytest.raises(ValueError, match="steps must be 0 or more, got -1"):
        robust_accuracy(linear, levels, L2(0.5), steps=-1)


class Wave(nn.Module):
    """sin(2π · 5 · mean): along the brightness right and wrong answers alternate every tenth."""

    def forward(self, inputs):
        return torch.sin(2 * math.pi * 5 * inputs.mean((1, 2, 3)))[:, None]


def striped() -> Classifier:
    """Class 1 where the wave is positive. Grey pixels only: the input's normalisation is a constant factor then."""
    model = Classifier(Wave(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model.mean.zero_()
        model.std.fill_(1)
        model.head.weight.copy_(torch.tensor([[0.0], [2.0]]))
    return model.eval()


def flat(*means: float, labels: list[int]) -> Dataset:
    images = torch.tensor(means).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE).clone()
    return Dataset(images, torch.tensor(labels), ("trough", "crest"), "flat")


@pytest.mark.parametrize("early_drop", [True, False])
def test_fooled_on_the_way_is_fooled(early_drop, monkeypatch):
    # A scripted attack: two images that start on a crest. After one step the first is in a trough, after two both are
    # on a crest again. Whoever looks at the last iterate only finds both of them right.
    data = flat(0.43, 0.45, labels=[1, 1])
    iterates = [flat(0.37, 0.45, labels=[1, 1]).images, flat(0.43, 0.43, labels=[1, 1]).images]
    asked = []

    def scripted(model, images, labels, threat, *, steps, step_size, start):
        asked.append((len(images), steps))
        return iterates[len(asked) - 1][-len(images) :]

    monkeypatch.setattr(robustness, "pgd", scripted)
    stands = withstands(striped(), data, Linf(0.2), steps=2, early_drop=early_drop)
    assert stands.tolist() == [False, True]
    assert asked == [(2, 1), (1 if early_drop else 2, 1)]


def test_an_attack_does_not_set_a_wrong_answer_right():
    # In a trough although labelled as a crest: one step of 0.1 away from the label ends in a crest.
    data = flat(0.37, labels=[1])
    adv = pgd(freeze(striped()), data.images, data.labels, Linf(0.2), steps=1, step_size=0.1)
    assert freeze(striped())(adv).argmax() == 1
    assert robust_accuracy(striped(), data, Linf(0.2), steps=1, step_size=0.1).value == 0


class Plateau(nn.Module):
    """max(|mean − 1/2| − 0.01, 0): no gradient at grey, a slope on both sides."""

    def forward(self, inputs):
        return ((inputs.mean((1, 2, 3)) - 0.5).abs() - 0.01).clamp(min=0)[:, None]


@pytest.mark.parametrize("early_drop", [True, False])
def test_restarts_leave_a_plateau(early_drop):
    model = striped()
    model.features, model.head = Plateau(), nn.Linear(1, 2)
    with torch.no_grad():  # class 1 on the plateau, class 0 from 0.06 away from grey
        model.head.weight.copy_(torch.tensor([[10.0], [-10.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    data = flat(*[0.5] * 40, labels=[1] * 40)
    # A random start moves the mean by some 0.2 / sqrt(3 · 48): half of them leave the plateau. Those that stay there
    # have had no gradient to follow, which is said.
    rates = []
    for count, share in ((0, "40 of 40 images"), (1, r"\d+ of 40 images"), (9, "")):
        said = pytest.warns(robustness.VanishedGradients, match=f"vanishes at {share}") if share else nullcontext()
        with said:
            found = robust_accuracy(model, data, Linf(0.2), steps=5, restarts=count, early_drop=early_drop)
        rates.append(found.value)
    assert rates[0] == 1
    assert 0 < rates[1] < 1
    assert rates[2] < rates[1]


@pytest.mark.parametrize("threat", [L2(0.6), Linf(0.02)], ids=str)
def test_dropping_fooled_images_changes_the_work_and_not_the_answer(threat, monkeypatch):
    # Catches draws that depend on who is left, indices of the shrunken batch used for the whole one, and no dropping.
    model = build_model("cnn4", width=8, seed=1).eval()
    images = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[::9] = (labels[::9] + 1) % 10
    data = Dataset(images, labels, tuple("abcdefghij"), "noise")
    work = []
    real = robustness.pgd

    def watched(model, images, *args, **kwargs):
        work.append(len(images) * kwargs["steps"])
        return real(model, images, *args, **kwargs)

    monkeypatch.setattr(robustness, "pgd", watched)
    settings = {"steps": 20, "restarts": 1, "batch_size": 25}
    whole = withstands(model, data, threat, early_drop=False, **settings)
    assert sum(work) == 60 * 20 * 2
    work.clear()
    assert torch.equal(withstands(model, data, threat, **settings), whole)
    assert 0 < int(whole.sum()) < 53, "the case should have both kinds"
    assert sum(work) < 60 * 20 * 2 / 2


@pytest.mark.parametrize(("steps", "pauses"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (20, [0, 2, 3, 5, 7, 11, 16, 20])])
def test_looks_come_after_a_tenth_and_then_half_as_many_steps_again(steps, pauses):
    assert robustness._pauses(steps) == pauses


@pytest.mark.parametrize("early_drop", [True, False])
@pytest.mark.parametrize("batch_size", [5, 500])
def test_any_function_that_stays_inside_the_threat_is_an_attack(linear, levels, early_drop, batch_size):
    # In ℓ∞ a flat image moves by the whole radius, so that those within 0.06 of 1/2 fall, and nobody else.
    asked = []

    def attack(model, images, labels, threat, *, away):
        asked.append((len(images), model.dtype, model.training))
        sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
        return (images + away * sign * threat.eps).clamp(0, 1)

    settings = {"early_drop": early_drop, "batch_size": batch_size}
    stands = withstands(linear, levels, Linf(0.06), attack=partial(attack, away=1.0), **settings)
    assert stands.tolist() == [False] * 6 + [True] * 6 + [False] * 2
    assert sum(count for count, *_ in asked) == (12 if early_drop else 14)
    assert max(count for count, *_ in asked) <= batch_size
    assert {(dtype, training) for _, dtype, training in asked} == {(freeze(linear).dtype, False)}
    # The other way the two that are labelled wrongly come to be right, which no attack may do.
    found = robust_accuracy(linear, levels, Linf(0.15), attack=partial(attack, away=-1.0), **settings)
    assert found.value == 12 / 14
    assert robust_accuracy(linear, levels, Linf(0.0), attack=attack, **settings).value == 12 / 14


def test_one_step_by_its_own_name_is_one_step_of_pgd(linear, levels):
    for threat in (L2(0.3), Linf(0.06)):
        by_name = withstands(linear, levels, threat, attack=fgsm)
        assert torch.equal(by_name, withstands(linear, levels, threat, steps=1, step_size=threat.eps))
        assert 0 < int(by_name.sum()) < 12


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (lambda _, images, *__: (images + 0.02).clamp(0, 1), ValueError, r"attack must stay inside linf eps=0\.01"),
        (lambda _, images, *__: images + 1, ValueError, r"attack: its answer must lie in \[0, 1\]"),
        (lambda _, images, *__: images * torch.nan, ValueError, r"attack: its answer must lie in \[0, 1\]"),
        (lambda _, images, *__: images[:1], TypeError, r"as it is given, .*got torch\.float32 \(1, 3, 4, 4\)"),
        (lambda _, images, *__: images.double(), TypeError, r"attack must answer with images .*got torch\.float64"),
        (lambda *_: None, TypeError, r"attack must answer with images .*got a NoneType"),
    ],
)
def test_a_function_that_is_no_attack_is_refused(linear, levels, unchecked_types, attack, error, message):
    with pytest.raises(error, match=message):
        withstands(linear, levels, Linf(0.01), attack=attack)


def test_a_function_brings_its_own_steps(linear, levels):
    with pytest.raises(ValueError, match="attack: a function fixes its steps and restarts, got steps=3"):
        robust_accuracy(linear, levels, Linf(0.01), attack=fgsm, steps=3)


def test_settings_that_make_no_attack_are_refused(linear, levels):
    with pytest.raises(ValueError, match="steps must be 0 or more, got None"):
        robust_accuracy(linear, levels, L2(0.5))
    with pytest.raises(ValueError, match="restarts must be 0 or more, got -1"):
        robust_accuracy(linear, levels, L2(0.5), steps=1, restarts=-1)


def test_an_interval_carried_to_fishers_scale_stays_inside_and_keeps_its_slope():
    plain = Estimate(0.6, 0.5, 0.8, 100, rate=False)
    carried = plain.on_fishers_scale()
    # artanh has slope 1 / (1 - 0.36) at 0.6.
    assert carried.low == pytest.approx(math.tanh(math.atanh(0.6) - 0.1 / 0.64), abs=1e-12)
    assert carried.high == pytest.approx(math.tanh(math.atanh(0.6) + 0.2 / 0.64), abs=1e-12)
    assert (carried.value, carried.n, carried.rate, carried.within) == (0.6, 100, False, (-1.0, 1.0))
    # Where the plain interval leaves [-1, 1] this one does not.
    beyond = Estimate(-0.95, -1.05, -0.85, 30, rate=False).on_fishers_scale()
    assert -1 < beyond.low < -0.95 < beyond.high < -0.6
    # A small interval is what it was, to second order.
    small = Estimate(0.6, 0.599, 0.601, 10_000, rate=False).on_fishers_scale()
    assert (small.low, small.high) == (pytest.approx(0.599, abs=2e-6), pytest.approx(0.601, abs=2e-6))
    # Always right: a point; and rounding beyond 1 is rounding, anything else an error.
    exact = Estimate(1 + 1e-12, 1.0, 1.0, 10, rate=False).on_fishers_scale()
    assert (exact.value, exact.low, exact.high) == (1, 1, 1)
    with pytest.raises(ValueError, match=r"a correlation must be in \[-1, 1\], got 1.5"):
        Estimate(1.5, 1.0, 2.0, 10, rate=False).on_fishers_scale()


def test_a_correlation_has_fishers_interval():
    # By hand: sums of squares 10 and 10, of products 9, so r = 0.9; artanh 0.9 = ln 19 / 2, half-width 1.96 / √2.
    pairs = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 4.0], [4.0, 3.0], [5.0, 5.0]])
    estimate = Estimate.of_correlation(pairs)
    half = 1.959963984540054 / math.sqrt(2)
    assert estimate.value == pytest.approx(0.9, abs=1e-12)
    assert estimate.low == pytest.approx(math.tanh(math.log(19) / 2 - half), abs=1e-12)
    assert estimate.high == pytest.approx(math.tanh(math.log(19) / 2 + half), abs=1e-12)
    assert (estimate.n, estimate.rate) == (5, False)
    mirrored = Estimate.of_correlation(pairs * torch.tensor([1.0, -1.0]))
    assert (mirrored.low, mirrored.high) == pytest.approx((-estimate.high, -estimate.low), abs=1e-12)
    # Neither place nor scale matters; a perfect line has no spread to measure.
    assert Estimate.of_correlation(pairs * torch.tensor([8.0, 1.0]) - 3).value == pytest.approx(0.9, abs=1e-12)
    line = Estimate.of_correlation(torch.stack([pairs[:, 0], 2 * pairs[:, 0] + 1], 1))
    assert line.low == pytest.approx(1.0, abs=1e-6)
    assert line.low <= line.value <= line.high


@pytest.mark.parametrize("pairs", [[[1.0, 1], [2, 2], [3, 4]], [[1.0, 5], [2, 5], [3, 5], [4, 5]]])
def test_a_correlation_that_is_none_is_refused(pairs):
    with pytest.raises(ValueError, match="four or more pairs that differ, got"):
        Estimate.of_correlation(torch.tensor(pairs))


def test_two_measurements_are_correlated_by_name():
    # Paired by their places, or by all names of the first, these would give another number.
    def measured(**values):
        return {name: Estimate(value, value - 1, value + 1, 9, rate=False) for name, value in values.items()}

    first, second = measured(x=9.0, a=1.0, b=2.0, c=3.0, d=4.0, e=5.0), measured(e=5.0, d=3.0, c=4.0, b=2.0, a=1.0)
    assert correlation_of(first, second).value == pytest.approx(0.9, abs=1e-12)
    without = [of.value for of in leaving_one_out(first, second)]
    assert without[0] == correlation_of(first, second, without="e").value == pytest.approx(0.8, abs=1e-12)
    assert without[1] == pytest.approx(correlation_of(first, measured(a=1.0, b=2.0, c=4.0, e=5.0)).value, abs=1e-12)
    assert len(without) == 5
    with pytest.raises(ValueError, match="first must hold all that second holds, and lacks x"):
        correlation_of(second, first)
    with pytest.raises(ValueError, match="without must be"):
        correlation_of(first, second, without="x")


TEMPLATES = torch.eye(3)[:, :, None, None].expand(-1, -1, 2, 2) * 0.2  # class c brightens channel c


def drawn(strength: float, seen: list[int], labels: list[int]) -> Dataset:
    """Grey images that hold ``strength`` times the template of the class that is seen in each."""
    images = 0.5 + strength * TEMPLATES[torch.tensor(seen)]
    return Dataset(images=images, labels=torch.tensor(labels), classes=("a", "b", "c"), name="drawn")


@pytest.mark.parametrize(
    ("dataset", "kept"),
    [
        (drawn(1.0, [0, 1, 2], [0, 1, 2]), 1.0),
        (drawn(0.25, [0, 1, 2], [0, 1, 2]), 0.25),
        (drawn(2.0, [0, 1, 2], [0, 1, 2]), 2.0),
        (drawn(1.0, [2, 0, 1], [2, 0, 1]), 1.0),  # new labels, as in D_rand: the label that counts is the new one
        (drawn(1.0, [1, 2, 0], [0, 1, 2]), -0.5),  # own response 0, others 0 and 1: it misleads by half
        (drawn(1.0, [0, 1, 2] * 3, [0, 0, 0, 1, 1, 1, 2, 2, 2]), 0.0),  # independent of the label
    ],
    ids=["all", "a quarter", "double", "relabelled", "misleading", "independent"],
)
def test_the_signal_kept_is_the_share_that_was_drawn(dataset, kept):
    original = drawn(1.0, [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2])
    estimate = signal_kept(dataset, original, TEMPLATES, paired=False)
    # Pixels are float32, so a strength drawn on grey is off by 2**-25 of 1 over an amplitude of 0.2.
    assert abs(estimate.value - kept) <= 12 * 2**-25 / 0.2
    assert estimate.n == len(dataset)
    assert not estimate.rate


def test_the_interval_of_a_paired_signal_holds_only_what_the_pairs_differ_by():
    generator = torch.Generator().manual_seed(0)
    seen = torch.randint(3, (60,), generator=generator)
    strength = 1 + 0.5 * torch.rand((60, 1, 1, 1), generator=generator)
    original = drawn(1.0, seen.tolist(), seen.tolist())
    original = original.replace(images=0.5 + strength * (original.images - 0.5))
    half = original.replace(images=0.5 + 0.5 * (original.images - 0.5))
    alone, paired = (signal_kept(half, original, TEMPLATES, paired=pairs) for pairs in (False, True))
    assert alone.value == pytest.approx(paired.value, abs=1e-6) == pytest.approx(0.5, abs=1e-6)
    assert alone.high - alone.low > 0.02
    assert paired.high - paired.low < 1e-5
    # By hand, with independent halves and doubles of equal strength: ratio 5/4, its variance that of the shares.
    mixed = drawn(1.0, [0, 1, 2, 0], [0, 1, 2, 0])
    kept = mixed.replace(images=torch.cat([drawn(0.5, [0, 1], [0, 1]).images, drawn(2.0, [2, 0], [2, 0]).images]))
    both = [signal_kept(kept, mixed, TEMPLATES, paired=pairs) for pairs in (False, True)]
    assert both[0].low == pytest.approx(both[1].low, abs=1e-5)
    with pytest.raises(ValueError, match="as many images in both, got 60 and 4"):
        signal_kept(half, mixed, TEMPLATES)


def test_the_signal_needs_a_template_per_class_and_something_to_keep():
    original = drawn(1.0, [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="2 templates for 3 classes"):
        signal_kept(original, original, TEMPLATES[:2])
    with pytest.raises(ValueError, match="the templates say nothing true about the labels of drawn"):
        signal_kept(original, drawn(1.0, [1, 2, 0], [0, 1, 2]), TEMPLATES)


def test_a_model_in_training_mode_is_not_asked():
    data = drawn(1.0, [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="training mode"):
        predictions(build_model("cnn4", width=4, classes=3).train(), data)


def test_a_median_has_the_interval_of_order_statistics():
    # The second and the tenth: in eleven tosses at most one head has a probability of 0.6 %, at most two 3.3 %.
    values = torch.arange(11.0)[torch.randperm(11, generator=torch.Generator().manual_seed(0))]
    found = Estimate.of_median(values)
    assert (found.low, found.value, found.high, found.n) == (1, 5, 9, 11)
    assert not found.rate
    assert Estimate.of_median(torch.arange(6.0)).low == 0
    assert Estimate.of_median(torch.tensor([1.0, 2, 3, 4, math.inf, math.inf])).high == math.inf
    for bad in (torch.arange(5.0), torch.tensor([1.0] * 6 + [math.nan])):
        with pytest.raises(ValueError, match="values: a median needs six or more"):
            Estimate.of_median(bad)


def test_the_interval_of_a_median_holds_as_often_as_it_says():
    draws = torch.randn(2000, 25, generator=torch.Generator().manual_seed(0)).exp()  # the true median is 1
    held = [found.low <= 1 <= found.high for found in map(Estimate.of_median, draws)]
    assert 0.95 <= sum(held) / len(held) <= 0.98  # 95.7 % by the binomial
