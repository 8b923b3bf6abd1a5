"""The checks pass an honest model and expose each kind of masking for the reason that it masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advfeat.data import Dataset
from advfeat.gradient_masking import check_gradient_masking
from advfeat.measures import accuracy
from advfeat.models import Classifier
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers

SIZE = 4
RULES = [
    "more steps gain little",
    "one step is not stronger",
    "the whole box is fatal",
    "no gradient is not better",
    "another network is not better",
]


class Stairs(nn.Module):
    """Pixels rounded to steps of 0.4 normalised units: nearly the same picture, no gradient anywhere."""

    def forward(self, inputs):
        return torch.round(inputs / 0.4) * 0.4


def network(*first: nn.Module, scale: float = 1.0, seed: int = 0) -> Classifier:
    """Five classes, linear in the pixels after ``first``."""
    head = nn.Linear(3 * SIZE * SIZE, 5, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, 48, generator=torch.Generator().manual_seed(0)))
        head.weight.add_(0.1 * torch.randn(5, 48, generator=torch.Generator().manual_seed(seed)))
    return Classifier(nn.Sequential(*first, nn.Flatten()), head, logit_scale=scale).eval()


@pytest.fixture
def data() -> Dataset:
    """Noise, labelled by the honest network: all right before the attack."""
    images = torch.rand(40, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = network()(images).argmax(1)
    return Dataset(images, labels, tuple("abcde"), "noise")


def verdicts(model: Classifier, data: Dataset, threat: L2 | Linf) -> dict[str, bool]:
    found = check_gradient_masking(model, data, threat, steps=10, surrogate=network(seed=3), pairs=20)
    assert [check.rule for check in found] == RULES
    assert all("%" in check.found for check in found)  # each verdict comes with the share behind it
    return {check.rule: check.passed for check in found}


@pytest.mark.parametrize("threat", [L2(0.3), Linf(0.04)], ids=str)
def test_an_honest_network_passes(data, threat):
    assert all(verdicts(network(), data, threat).values())


@pytest.mark.parametrize("threat", [L2(0.3), Linf(0.04)], ids=str)
def test_a_network_without_gradients_is_exposed(data, threat):
    found = verdicts(network(Stairs()), data, threat)
    # The attack stands still however far it may go, while those that do not ask for gradients succeed.
    assert not found["the whole box is fatal"]
    assert not found["no gradient is not better"]
    assert not found["another network is not better"]
    assert found["more steps gain little"]


def test_a_saturated_network_is_exposed(data):
    # Logits times 10,000: in float32 the wrong classes have probability 0, and so have the gradients.
    found = verdicts(network(scale=1e4), data, L2(0.3))
    assert not found["the whole box is fatal"]
    assert not found["no gradient is not better"]


def test_an_attack_that_has_not_converged_is_exposed(data):
    # Ten steps of a fortieth of the radius each would pass a lazy check; here one long step is stronger.
    class Short(L2):
        def step(self, adv, origin, gradient, step_size, **place):
            short = step_size if step_size == self.eps else min(step_size, 0.01)
            return super().step(adv, origin, gradient, short, **place)

    found = verdicts(network(), data, Short(0.3))
    assert not found["more steps gain little"]
    assert not found["one step is not stronger"]


def test_the_numbers_are_said(data):
    model = network(Stairs())
    said = check_gradient_masking(model, data, Linf(0.04), steps=10, pairs=20)
    assert len(said) == 4, "no surrogate, no fifth check"
    # Without a gradient the attack leaves the right answers right.
    right = accuracy(model, data).value
    assert said[2].found == f"with linf eps=1 PGD-10 leaves {right:.1%} of the images"
    assert said[3].found.startswith("climbing by 400 queries fools ")


def test_the_numbers_do_not_depend_on_the_batches(data):
    said = [check_gradient_masking(network(), data, L2(0.3), steps=5, pairs=5, batch_size=size) for size in (7, 500)]
    assert said[0] == said[1]


def test_a_check_of_nothing_is_refused(data):
    for threat, steps in ((L2(0.3), 0), (L2(0.0), 5)):
        with pytest.raises(ValueError, match="steps and radius must be positive"):
            check_gradient_masking(network(), data, threat, steps=steps)
