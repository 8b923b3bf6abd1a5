"""The linear probe against closed forms and scikit-learn's equations, and fine-tuning against plain training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from advfeat.data import Dataset
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, build_model, freeze
from advfeat.planted import PlantedWorld, planted
from advfeat.probe import fine_tuned, frozen_features, linear_probe
from advfeat.train import train

pytestmark = pytest.mark.numbers


def clouds(n, *, classes=3, width=4, apart=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = apart * torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(n, width, generator=generator), labels


def objective(probe, features, labels, weight, bias):
    z = (features.double() - probe.centre) / probe.scale
    loss = nn.functional.cross_entropy(z @ weight.T + bias, labels)
    return loss + probe.penalty / 2 * weight.square().sum()


# The linear probe


def test_two_points_have_the_closed_form():
    """Two standardised points ±1: by symmetry w = (−a, a), where 2·σ(−2a)/2 = penalty·a; bias 0."""
    for penalty in (1.0, 0.1, 0.01):
        probe = linear_probe(torch.tensor([[3.0], [7.0]]), torch.tensor([0, 1]), classes=2, penalties=[penalty])
        low, high = 0.0, 50.0  # the derivative of log(1 + e^(−2a)) + penalty·a² at a changes its sign between them
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if 2 * penalty * middle < 2 / (1 + math.exp(2 * middle)) else (low, middle)
        assert (probe.centre - 5).abs() < 1e-12
        assert (probe.scale - 2).abs() < 1e-12
        assert (probe.weight - torch.tensor([[-low], [low]], dtype=torch.float64)).abs().max() < 1e-4
        assert (probe.bias[1] - probe.bias[0]).abs() < 1e-5


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_gradient_vanishes_and_no_neighbour_is_better(penalty):
    """Catches a penalty on the bias, a sum in place of a mean, and features that are not standardised."""
    features, labels = clouds(200, apart=1.0)
    probe = linear_probe(100 * features + 7, labels, classes=3, penalties=[penalty])
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    found = objective(probe, 100 * features + 7, labels, weight, bias)
    for gradient in torch.autograd.grad(found, (weight, bias)):
        assert gradient.abs().max() < 2e-5
    generator = torch.Generator().manual_seed(1)
    for size in (1e-2, 1.0):
        step = size * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        assert objective(probe, 100 * features + 7, labels, probe.weight + step, probe.bias) > found


def test_scikit_learn_finds_the_same_layer():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    features, labels = clouds(300, apart=0.7, seed=3)
    probe = linear_probe(features, labels, classes=3, penalties=[0.01])
    z = ((features.double() - probe.centre) / probe.scale).numpy()
    # Theirs minimises C · sum of losses + ‖W‖²/2.
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * len(z)), tol=1e-8, max_iter=10_000).fit(z, labels.numpy())
    assert (probe.weight - torch.from_numpy(theirs.coef_)).abs().max() < 1e-3


def test_the_layer_does_not_depend_on_units_and_offsets():
    features, labels = clouds(150)
    plain = linear_probe(features, labels, classes=3, penalties=[0.1])
    scaled = linear_probe(features * torch.tensor([1.0, 10, 1e3, 1e-3]) - 5, labels, classes=3, penalties=[0.1])
    assert (plain.weight - scaled.weight).abs().max() < 1e-3


def test_separable_classes_are_separated_and_a_constant_feature_is_ignored():
    features, labels = clouds(60, apart=40.0)
    features = torch.cat([features, torch.full((60, 1), 3.0)], 1)
    probe = linear_probe(features, labels, classes=3)
    assert probe.accuracy(features, labels).value == 1
    assert probe.weight[:, -1].abs().max() == 0
    assert probe.penalty == 1.0  # all choices are perfect on held-out images: the largest


def test_the_penalty_is_chosen_on_held_out_training_images():
    """Labels that the features say nothing about are learned by heart without a penalty; held-out images show it."""
    generator = torch.Generator().manual_seed(5)
    features = torch.cat([2.5 * torch.eye(2)[torch.arange(80) % 2], torch.randn(80, 60, generator=generator)], 1)
    features[:, :2] += torch.randn(80, 2, generator=generator)
    labels = torch.arange(80) % 2
    probe = linear_probe(features, labels, classes=2, penalties=[1.0, 1e-4], seed=2)
    assert set(probe.held_out) == {1.0, 1e-4}
    assert all(estimate.n == 16 for estimate in probe.held_out.values())
    assert probe.held_out[probe.penalty].value == max(estimate.value for estimate in probe.held_out.values())
    again = linear_probe(features, labels, classes=2, penalties=[1e-4, 1.0], seed=2)
    assert torch.equal(again.weight, probe.weight)


def test_accuracy_is_that_of_the_logits():
    features, labels = clouds(90)
    probe = linear_probe(features, labels, classes=4, penalties=[0.1])  # class 3 has no image
    logits = probe.logits(features)
    assert logits.shape == (90, 4)
    assert probe.accuracy(features, labels).value == float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": torch.full((9,), 3)}, "labels"),
        ({"penalties": []}, "penalties"),
        ({"penalties": [0.0]}, "penalties"),
        ({"penalties": 0.1}, "penalties"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 1.0}, "held_out"),
        ({"held_out": 0.01}, "features"),
        ({"classes": 1}, "classes"),
        ({"features": torch.full((9, 2), torch.nan)}, "features"),
        ({"features": torch.zeros(8, 2)}, "8 features"),
    ],
)
def test_the_probe_refuses_bad_input(unchecked_types, changes, named):
    given = {"features": torch.rand(9, 2), "labels": torch.arange(9) % 3, "classes": 3} | changes
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        linear_probe(given.pop("features"), given.pop("labels"), **given)


def test_features_of_another_width_are_refused():
    probe = linear_probe(*clouds(30), classes=3, penalties=[0.1])
    with pytest.raises(ValueError, match=r"^features must have shape"):
        probe.logits(torch.rand(3, 5))


# Frozen features


def test_frozen_features_are_those_of_the_network_in_evaluation_mode():
    model = build_model("cnn4", width=8, seed=1).train()
    dataset = planted(PlantedWorld(), 23, seed=0)
    found = frozen_features(model, dataset, batch_size=10)
    expected = freeze(model, dtype=torch.float32).representation(dataset.images)
    assert model.training  # untouched
    assert (found - expected).abs().max() < 1e-5


def test_a_representation_that_is_not_finite_is_refused():
    model = build_model("cnn4", width=8, seed=1).eval()
    with torch.no_grad():
        model.features[2].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^model: .* not finite for 5 of 5"):
        frozen_features(model, planted(PlantedWorld(), 5, seed=0))


# Fine-tuning

CONFIG = TrainConfig(epochs=2, batch_size=20, lr=0.05)


def test_fine_tuning_is_training_from_the_given_weights():
    source = build_model("cnn4", width=8, seed=1)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    dataset = planted(PlantedWorld(), 60, seed=0)
    few = Dataset(dataset.images, dataset.labels % 3, ("a", "b", "c"), "three")
    tuned = fine_tuned(source, few, CONFIG, seed=4)
    assert all(torch.equal(source.state_dict()[name], value) for name, value in before.items())
    assert tuned.head.weight.shape == (3, source.head.in_features)
    # By hand: the same weights with the same head, trained.
    twin = build_model("cnn4", width=8, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        twin.head = nn.Linear(source.head.in_features, 3, bias=False)
    twin.requires_grad_(True)
    train(twin, few, CONFIG, seed=4)
    for (name, value), (_, other) in zip(tuned.state_dict().items(), twin.state_dict().items(), strict=True):
        assert torch.equal(value, other), name


def test_every_layer_is_trained_whatever_was_fixed_before():
    source = build_model("cnn4", width=8, seed=1)
    tuned = fine_tuned(source, planted(PlantedWorld(), 40, seed=0), CONFIG, seed=0)
    assert all(parameter.requires_grad for parameter in tuned.parameters())
    moved = [not torch.equal(old, new) for old, new in zip(source.parameters(), tuned.parameters(), strict=True)]
    assert all(moved)


def test_a_frozen_network_is_refused():
    with pytest.raises(TypeError, match=r"^model must be a models.Classifier that can be trained"):
        fine_tuned(freeze(build_model("cnn4", width=8)), planted(PlantedWorld(), 40, seed=0), CONFIG, seed=0)
    assert issubclass(type(freeze(build_model("cnn4", width=8))), Classifier)


# What transfers between planted worlds


def test_a_network_of_textures_serves_worlds_with_the_same_textures():
    """The features of a network are those of its training images: a probe finds textures only where it saw textures."""
    source = build_model("cnn4", width=16, seed=0)
    train(source, planted(PlantedWorld(), 2000, seed=1, shapes=False), TrainConfig(epochs=4, batch_size=100, lr=0.1),
          seed=0)  # fmt: skip
    rates = {}
    for texture_set in (0, 1):
        world = PlantedWorld(shape_set=1, texture_set=texture_set)
        few, unseen = (planted(world, n, seed=seed, shapes=False) for n, seed in ((100, 3), (500, 4)))
        probe = linear_probe(frozen_features(source, few), few.labels, classes=10)
        rates[texture_set] = probe.accuracy(frozen_features(source, unseen), unseen.labels)
    assert rates[0].low > rates[1].high + 0.2
