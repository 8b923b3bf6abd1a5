"""Usefulness against closed forms: Gaussian features, linear features in a ball and a box, the planted world."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from advfeat.features import (
    class_usefulness,
    linear_responses,
    linear_truth,
    robust_usefulness,
    searched_responses,
    shares,
    usefulness,
)
from advfeat.planted import PlantedWorld, planted
from advfeat.responses import Responses
from advfeat.threats import FREE, L2, Linf

pytestmark = pytest.mark.numbers

MEAN, VARIANCE = torch.tensor([1.0, 0.3]), torch.tensor([3.0, 0.2])
RHO = (0.5, 0.3 / math.sqrt(0.29))
GAMMA = {0.25: (0.375, 0.05 / math.sqrt(0.29)), 0.5: (0.25, -0.2 / math.sqrt(0.29))}
"""x ~ N(yμ, diag(3, 0.2)), μ = (1, 0.3): the second coordinate is the more useful one, and non-robust at 0.5."""


def gaussian_twin() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight "images" of two pixels with exactly the moments of the Gaussian task, and which have y = +1."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * VARIANCE.sqrt()
    pixels = torch.cat([MEAN + corners, corners - MEAN])
    return pixels.view(8, 1, 1, 2), torch.arange(8) < 4


def values(estimates) -> list[float]:
    return [estimate.value for estimate in estimates]


# The definitions


@pytest.mark.parametrize("eps", [0.25, 0.5])
def test_coordinates_of_a_gaussian_have_the_known_usefulness(eps):
    """Fails for a variance in place of E[f²], for a radius on the wrong scale, for an infimum of the wrong sign."""
    images, positive = gaussian_twin()
    coordinates = torch.eye(2).view(2, 1, 1, 2)
    responses = linear_responses(coordinates, images, L2(eps), box=False)
    # float32 pixels: a few roundings of 2^-24 relative to values up to 3.
    assert np.abs(np.subtract(values(usefulness(responses.clean, positive)), RHO)).max() < 1e-6
    assert np.abs(np.subtract(values(robust_usefulness(responses, positive)), GAMMA[eps])).max() < 1e-6


@pytest.mark.parametrize("eps", [0.25, 0.5])
def test_known_moments_give_the_known_usefulness(eps):
    means = torch.stack([MEAN, -MEAN]).double()
    rho, gamma = linear_truth(means, VARIANCE.double().expand(2, 2), torch.full((2,), eps).double(), 0)
    # μ and Σ passed through float32.
    assert (rho - torch.tensor(RHO).double()).abs().max() < 1e-6
    assert (gamma - torch.tensor(GAMMA[eps]).double()).abs().max() < 1e-6


def test_both_sides_count_one_half_however_many_images_they_have():
    """Fails for one mean over all images, in which a rare class would hardly count."""
    images, positive = gaussian_twin()
    responses = linear_responses(torch.eye(2).view(2, 1, 1, 2), images, L2(0.5), box=False)
    rows = torch.cat([torch.arange(8), torch.arange(4, 8).repeat(9)])
    more = Responses(responses.clean[rows], responses.lowest[rows], responses.highest[rows])
    for measure, first, second in (
        (usefulness, responses.clean, more.clean),
        (robust_usefulness, responses, more),
    ):
        difference = np.subtract(values(measure(first, positive)), values(measure(second, positive[rows])))
        assert np.abs(difference).max() < 1e-12


def oriented(responses, signs):
    """Feature f replaced by −f wherever its sign is negative; the least value of −f is minus the greatest of f."""
    turned = signs < 0
    return Responses(
        clean=torch.where(turned, -responses.clean, responses.clean),
        lowest=torch.where(turned, -responses.highest, responses.lowest),
        highest=torch.where(turned, -responses.lowest, responses.highest),
    )


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100), negative=st.booleans(), seed=st.integers(0, 99))
def test_scale_and_shift_do_not_matter_and_the_sign_is_undone_by_orienting(scale, shift, negative, seed):
    """Fails for features that are not standardised, and for −f with its extremes not exchanged."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randn(30, 3, generator=draw, dtype=torch.float64)
    plain = Responses(clean, clean - torch.rand(30, 3, generator=draw), clean + torch.rand(30, 3, generator=draw))
    positive = torch.arange(30) < 12
    factor = -scale if negative else scale
    low, high = (plain.highest, plain.lowest) if negative else (plain.lowest, plain.highest)
    other = Responses(factor * plain.clean + shift, factor * low + shift, factor * high + shift)
    other = oriented(other, torch.full((3,), factor))
    assert (other.lowest <= other.clean).all()
    assert (other.clean <= other.highest).all()
    # Cancellation of a shift up to 10^4 times the scale costs four of sixteen digits, squares twice as many.
    difference = np.subtract(values(usefulness(other.clean, positive)), values(usefulness(clean, positive)))
    assert np.abs(difference).max() < 1e-7
    difference = np.subtract(values(robust_usefulness(other, positive)), values(robust_usefulness(plain, positive)))
    assert np.abs(difference).max() < 1e-7


def test_a_perfect_feature_has_usefulness_one_and_no_doubt():
    positive = torch.arange(10) < 3
    (estimate,) = usefulness(positive.float()[:, None], positive)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (1, 1, 1, 10)


# Intervals


@pytest.mark.parametrize("rest", [400, 1600])
@pytest.mark.parametrize("eps", [0.0, 0.6])
def test_intervals_hold_the_truth_as_often_as_they_say(eps, rest):
    """2,000 repetitions as 2,000 features. Fails where σ is taken for known, or the sides' variances are pooled."""
    repetitions, mean, spread = 2000, 0.8, (1.0, 0.5)
    draw = torch.Generator().manual_seed(5)
    clean = torch.cat(
        [
            mean + spread[0] * torch.randn(400, repetitions, generator=draw, dtype=torch.float64),
            -mean + spread[1] * torch.randn(rest, repetitions, generator=draw, dtype=torch.float64),
        ]
    )
    positive = torch.arange(len(clean)) < 400
    scale = math.sqrt(mean**2 + (spread[0] ** 2 + spread[1] ** 2) / 2)
    truth = (mean - eps) / scale
    estimates = robust_usefulness(Responses(clean, clean - eps, clean + eps), positive)
    share = np.mean([item.low <= truth <= item.high for item in estimates])
    # Four standard deviations of a share of 2,000, and half a point because the ratio is normal only in the limit:
    # with 100 images a side the intervals hold 93.4 % of the time.
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / repetitions) + 0.005
    if eps == 0:
        naive = 1.96 * (clean[positive].var(0) / 400 + clean[~positive].var(0) / rest).sqrt().mean() / 2 / scale
        assert np.mean([item.high - item.low for item in estimates]) / 2 < 0.8 * naive


def test_a_higher_level_gives_a_wider_interval():
    clean = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    positive = torch.arange(50) < 20
    narrow, wide = (usefulness(clean, positive, level=level)[0] for level in (0.95, 0.999))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high


# Linear features in the box


def random_case(seed: int, pixels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 1, 1, pixels, generator=draw)
    weights[1, 0, 0, 0] = 0  # a pixel that does not count
    images = torch.rand(4, 1, 1, pixels, generator=draw)
    images[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 0.0])  # pixels at the edge of the box
    return weights, images


@pytest.mark.parametrize("eps", [0.05, 0.4, 1.2, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_extremes_in_ball_and_box_are_those_of_a_convex_solver(seed, eps):
    """Fails for a box that is ignored, for clamping without using up the radius elsewhere, for the wrong room."""
    weights, images = random_case(seed)
    responses = linear_responses(weights, images, L2(eps))
    for i, image in enumerate(images.flatten(1).double().numpy()):
        for j, row in enumerate(weights.flatten(1).double().numpy()):
            for sign, found in ((1, responses.highest), (-1, responses.lowest)):
                solved = minimize(
                    lambda delta, row=row, sign=sign: -sign * row @ delta,
                    np.zeros_like(image),
                    jac=lambda _, row=row, sign=sign: -sign * row,
                    bounds=list(zip(-image, 1 - image, strict=True)),
                    constraints={
                        "type": "ineq",
                        "fun": lambda delta: eps**2 - delta @ delta,
                        "jac": lambda delta: -2 * delta,
                    },
                    method="SLSQP",
                    options={"ftol": 1e-14, "maxiter": 500},
                )
                assert found[i, j] == pytest.approx(row @ (image + solved.x), abs=1e-6)


def test_extremes_in_the_cube_are_those_of_the_corners():
    weights, images = random_case(0)
    responses = linear_responses(weights, images, Linf(0.3))
    rows, pixels = weights.flatten(1).double(), images.flatten(1).double()
    low, high = (pixels - 0.3).clamp(min=0), (pixels + 0.3).clamp(max=1)
    for j, row in enumerate(rows):
        assert (responses.highest[:, j] - torch.where(row > 0, high, low) @ row).abs().max() < 1e-12
        assert (responses.lowest[:, j] - torch.where(row > 0, low, high) @ row).abs().max() < 1e-12


@pytest.mark.parametrize(("threat", "dual"), [(L2(0.3), 2), (Linf(0.3), 1)])
def test_without_the_box_a_feature_moves_by_the_dual_norm(threat, dual):
    weights, images = random_case(1)
    responses = linear_responses(weights, images, threat, box=False)
    reach = 0.3 * weights.flatten(1).double().norm(p=dual, dim=1)
    assert (responses.highest - responses.clean - reach).abs().max() < 1e-12
    assert (responses.clean - responses.lowest - reach).abs().max() < 1e-12
    inside = linear_responses(weights, images, threat)
    assert (inside.highest <= responses.highest + 1e-12).all()
    assert (inside.lowest >= responses.lowest - 1e-12).all()


def test_without_a_limit_the_extremes_are_those_of_the_box():
    weights, images = random_case(1)
    weights[:, :, 0] = 0
    found = linear_responses(weights, images, FREE)
    assert torch.allclose(found.highest, weights.flatten(1).double().clamp(min=0).sum(1).expand_as(found.highest))
    assert torch.allclose(found.lowest, weights.flatten(1).double().clamp(max=0).sum(1).expand_as(found.lowest))


# Search


@pytest.mark.parametrize("threat", [L2(0.2), Linf(0.02)])
def test_the_search_finds_the_exact_extremes_of_linear_features(threat):
    """Fails for one direction only, for an ascent where a descent is due, for features mixed up."""
    draw = torch.Generator().manual_seed(2)
    weights = torch.randn(3, 3, 8, 8, generator=draw)
    images = 0.25 + 0.5 * torch.rand(5, 3, 8, 8, generator=draw)  # no pixel reaches the edge: one step is enough
    exact = linear_responses(weights, images, threat)
    for steps, batch_size in ((1, 500), (4, 2)):
        found = searched_responses(
            lambda x: x.flatten(1) @ weights.flatten(1).T,
            images,
            threat,
            steps=steps,
            step_size=threat.eps,
            batch_size=batch_size,
        )
        # Sums of 192 float32 products of size 1.
        for name in ("clean", "lowest", "highest"):
            assert (getattr(found, name) - getattr(exact, name)).abs().max() < 1e-4


def test_the_best_value_on_the_way_counts():
    """A peak that every step overshoots: the highest value is the image's own. Fails for the last iterate."""
    images = torch.full((2, 1, 2, 2), 0.5)
    images[1] += 0.01
    found = searched_responses(
        lambda x: -(x - 0.5).flatten(1).abs().sum(1, keepdim=True), images, Linf(0.4), steps=3, step_size=0.4
    )
    assert found.highest.flatten().tolist() == pytest.approx([0.0, -0.04], abs=1e-6)
    assert found.lowest[1] < -1.5  # the first image lies on the peak, where the gradient is 0


# All classes at once


def labelled_responses() -> tuple[Responses, torch.Tensor]:
    """Five features of 90 images in three classes of unequal size; the last feature is silent."""
    draw = torch.Generator().manual_seed(6)
    labels = torch.tensor([0] * 20 + [1] * 30 + [2] * 40)
    clean = torch.randn(90, 5, generator=draw, dtype=torch.float64) + 1.5 * torch.randn(3, 5, generator=draw)[labels]
    low, high = (torch.rand(90, 5, generator=draw) for _ in range(2))
    clean[:, 4] = low[:, 4] = 0
    return Responses(clean, clean - low, clean + high), labels


def test_the_plane_is_what_the_estimates_say_class_by_class():
    """Fails for a sign that is not turned, extremes that are not exchanged with it, a rest that weights its classes."""
    responses, labels = labelled_responses()
    useful, robust = class_usefulness(responses, labels)
    alive = Responses(*(part[:, :4] for part in (responses.clean, responses.lowest, responses.highest)))
    for c in range(3):
        signs = torch.tensor(values(usefulness(alive.clean, labels == c)))
        turned = oriented(alive, signs)
        assert np.abs(useful[c, :4].numpy() - values(usefulness(turned.clean, labels == c))).max() < 1e-9
        assert np.abs(robust[c, :4].numpy() - values(robust_usefulness(turned, labels == c))).max() < 1e-9
    assert (useful >= 0).all()
    assert not useful[:, 4].any()
    assert not robust[:, 4].any()


def test_shares_count_pairs_and_their_intervals_those_of_the_images():
    responses, labels = labelled_responses()
    useful, robust = class_usefulness(responses, labels)
    found = shares(responses, labels, threshold=0.3)
    assert found["useful"].value == pytest.approx(float((useful >= 0.3).double().mean()))
    assert found["robust"].value == pytest.approx(float(((useful >= 0.3) & (robust > 0)).double().mean()))
    assert found["non-robust"].value == pytest.approx(float(((useful >= 0.3) & (robust < 0)).double().mean()))
    assert found["useful"].value == pytest.approx(found["robust"].value + found["non-robust"].value)
    assert shares(responses, labels, threshold=0.3) == found
    # Ten times the same images: the pairs are no more in number, but their values are surer. Fails for an interval
    # from the number of pairs.
    more = Responses(*(part.repeat(10, 1) for part in (responses.clean, responses.lowest, responses.highest)))
    surer = shares(more, labels.repeat(10), threshold=0.3)["useful"]
    assert surer.value == pytest.approx(found["useful"].value)
    assert surer.high - surer.low < 0.8 * (found["useful"].high - found["useful"].low)


# The planted world


def matched_filters(world: PlantedWorld) -> torch.Tensor:
    """Ten shapes, each against the mean of all, and ten textures, with unit norm."""
    shapes = world.shapes() - world.shapes().mean(0)
    both = torch.cat([shapes, world.textures()])
    return both / both.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def test_on_the_planted_world_every_estimate_agrees_with_the_planted_truth():
    """Forty intervals that hold together with 95 %: ρ and γ of ten shapes and ten textures, each for its own class."""
    world = PlantedWorld()
    filters = matched_filters(world)
    dataset = planted(world, 5000, seed=3)
    responses = linear_responses(filters, dataset.images, L2(0.5), box=False)
    moments = world.moments(filters)
    missed = []
    for c in range(10):
        positive = dataset.labels == c
        truth = linear_truth(*moments, torch.full((20,), 0.5).double(), c)
        found = (
            usefulness(responses.clean, positive, level=1 - 0.05 / 40),
            robust_usefulness(responses, positive, level=1 - 0.05 / 40),
        )
        for name, exact, estimates in zip(("rho", "gamma"), truth, found, strict=True):
            for k in (c, 10 + c):
                if not estimates[k].low <= exact[k] <= estimates[k].high:
                    missed.append((name, k, str(estimates[k]), float(exact[k])))
        shape, texture = (truth[1][k] for k in (c, 10 + c))
        assert shape > 0.4, "a shape is a robust feature"
        assert texture < -1.5, "a texture is useful and not robust"
        assert truth[0][c] < truth[0][10 + c] + 0.05, "and about as useful as the shape, or more"
    assert not missed


# Refusals


def test_bad_input_is_refused():
    clean = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    positive = torch.arange(6) < 3
    with pytest.raises(ValueError, match=r"got 1 with y = \+1 and 5 with y = −1"):
        usefulness(clean, torch.arange(6) < 1)
    with pytest.raises(ValueError, match=r"features \[1\] have one value"):
        usefulness(torch.stack([clean[:, 0], torch.full((6,), 0.1)], 1), positive)
    broken = clean.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"features \[1\] are not finite"):
        usefulness(broken, positive)
    for measure in (class_usefulness, shares):
        with pytest.raises(ValueError, match=r"features \[1\] are not finite"):
            measure(Responses(clean, broken, clean), positive.long())
    for labels, counts in (([0, 0, 0, 2, 2, 2], r"\[3, 0, 3\]"), ([0] * 6, r"\[6\]")):
        for measure in (class_usefulness, shares):
            with pytest.raises(ValueError, match=f"each with images, are needed; got {counts}"):
                measure(Responses(clean, clean, clean), torch.tensor(labels))
    with pytest.raises(ValueError, match="level must be in"):
        usefulness(clean, positive, level=95)
    for steps, step_size in ((0, 0.1), (1, 0.0)):
        with pytest.raises(ValueError, match=f"steps={steps}, step_size={step_size}"):
            searched_responses(lambda x: x, torch.zeros(1, 1, 1, 1), L2(0.1), steps=steps, step_size=step_size)


def test_a_gradient_that_is_not_finite_is_reported():
    with pytest.raises(FloatingPointError, match="feature 0"):
        searched_responses(
            lambda x: (x.flatten(1).sum(1, keepdim=True) - 4).sqrt() * math.nan,
            torch.ones(1, 1, 2, 2),
            L2(0.1),
            steps=1,
            step_size=0.1,
        )
