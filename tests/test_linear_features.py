"""Linear classifiers, their certificates and linear features, beside closed forms and searches."""

from __future__ import annotations

import math

import pytest
import torch

from advfeat.data import Dataset
from advfeat.features import linear_responses, robust_usefulness, usefulness
from advfeat.linear_features import LinearClassifier, fit_linear, principal_directions, signed_sum
from advfeat.threats import FREE, L2, Linf

pytestmark = pytest.mark.numbers


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blobs(n=600, k=6, classes=3, apart=3.0):
    labels = torch.arange(n) % classes
    return apart * draw(classes, k, seed=1)[labels] + draw(n, k, seed=2), labels


def worst_loss(weights, bias, values, labels, eps):
    """Cross-entropy of two classes at the worst ℓ2 perturbation, which moves the margin by ε‖w₁ − w₀‖."""
    margin = values @ (weights[1] - weights[0]) + bias[1] - bias[0]
    signed = torch.where(labels == 1, margin, -margin) - eps * (weights[1] - weights[0]).norm()
    return torch.nn.functional.softplus(-signed).mean()


def test_an_ordinary_fit_has_no_gradient_left():
    """Catches a loss that stops early, a penalty on the bias and a centre that is not moved back."""
    values, labels = blobs()
    found = fit_linear(values + 5, labels, classes=3, penalty=1e-2)
    weights, bias = found.weights.clone().requires_grad_(), found.bias.clone().requires_grad_()
    scores = (values + 5).double() @ weights.T + bias
    loss = torch.nn.functional.cross_entropy(scores, labels) + 0.005 * weights.square().sum()
    slopes = torch.autograd.grad(loss, [weights, bias])
    assert max(float(slope.abs().max()) for slope in slopes) < 2e-3


@pytest.mark.parametrize("eps", [0.3, 1.0])
def test_with_two_classes_the_robust_fit_is_the_best_against_the_worst_perturbation(eps):
    """Catches a radius that counts the weights of one class instead of the difference of both."""
    values, labels = blobs(classes=2)
    found = fit_linear(values, labels, classes=2, threat=L2(eps), penalty=0.0)
    best = float(worst_loss(found.weights, found.bias, values.double(), labels, eps))
    for seed in range(20):
        weights, bias = found.weights + 0.05 * draw(2, 6, seed=seed).double(), found.bias + 0.05 * draw(2, seed=seed)
        assert float(worst_loss(weights, bias, values.double(), labels, eps)) > best - 1e-5


def test_where_nothing_linear_withstands_the_answer_is_the_commonest_class():
    values, labels = blobs()
    labels = torch.where(torch.arange(len(labels)) < 40, 0, labels)
    found = fit_linear(values, labels, classes=3, threat=L2(500.0))
    assert float(found.weights.abs().max()) < 1e-3
    assert (found.predictions(values) == labels.bincount().argmax()).all()


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.2)])
def test_a_certificate_is_exact(threat):
    """No draw from the threat changes a certified answer, and the least move that should change another one does."""
    values, labels = blobs(apart=0.7)
    model = fit_linear(values, labels, classes=3)
    sure, answers = model.certified(values, threat), model.predictions(values)
    assert 0 < int(sure.sum()) < len(values)
    moves = draw(50, 6, seed=3)
    moves = moves / moves.norm(dim=1, keepdim=True) if isinstance(threat, L2) else moves.sign()
    for move in moves:
        assert (model.predictions(values + threat.eps * move)[sure] == answers[sure]).all()
    for row in (~sure).nonzero().flatten().tolist():
        weights = model.weights - model.weights[answers[row]]
        steps = weights / weights.norm(dim=1, keepdim=True) if isinstance(threat, L2) else weights.sign()
        steps = torch.where(weights.norm(dim=1, keepdim=True) > 0, steps, 0)
        moved = values[row].double() + threat.eps * (1 + 1e-9) * steps
        assert (model.predictions(moved) != answers[row]).any()


def test_without_a_bound_nothing_is_certified():
    with pytest.raises(ValueError, match="threat must have a finite radius"):
        LinearClassifier(draw(2, 3), draw(2)).certified(draw(4, 3), FREE)


def test_principal_directions_find_the_axes_that_were_drawn():
    spread = torch.tensor([0.2, 0.05, 0.01])
    images = (0.5 + draw(4000, 3) * spread).clamp(0, 1).view(-1, 3, 1, 1)
    directions, deviations = principal_directions(images)
    assert (directions.flatten(1).abs() - torch.eye(3)).abs().max() < 0.05
    assert torch.allclose(deviations, spread.double(), rtol=0.05)
    few, _ = principal_directions(images[:2])
    assert few.shape == (2, 3, 1, 1)


def test_a_signed_sum_is_more_useful_and_less_robust_than_its_parts():
    """Many faint directions: ρ grows as the root of their number, and the least of them decides γ."""
    labels = torch.arange(3000) % 2
    images = 0.5 + 0.02 * draw(3000, 3 * 16) + 0.01 * (2 * labels[:, None] - 1)
    images = images.clamp(0, 1).view(-1, 3, 4, 4)
    positive = labels == 1
    axes = torch.eye(48).view(48, 3, 4, 4) * torch.where(torch.arange(48) % 2 == 0, 1.0, -1.0)[:, None, None, None]
    together = signed_sum(axes, images, positive)
    assert float(together.norm()) == pytest.approx(1)
    assert (together > 0).all()  # every direction was turned to its side
    parts, whole = (linear_responses(rows.float(), images, L2(0.1), box=False) for rows in (axes[:1], together[None]))
    assert usefulness(whole.clean, positive)[0].value > 2 * abs(usefulness(parts.clean, positive)[0].value)
    exact = math.sqrt(48) * 0.01 / math.sqrt(0.02**2 + 48 * 0.01**2)
    assert usefulness(whole.clean, positive)[0].value == pytest.approx(exact, abs=0.02)
    assert robust_usefulness(whole, positive)[0].value < 0


def test_one_side_alone_has_no_signs():
    images = Dataset(torch.rand(4, 3, 2, 2), torch.zeros(4).long(), ("a",), "x").images
    with pytest.raises(ValueError, match="positive: both sides need images"):
        signed_sum(images, images, torch.ones(4, dtype=torch.bool))
