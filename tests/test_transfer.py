"""Transfer between linear networks whose worst images are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advfeat import transfer as transfer_module
from advfeat.data import Dataset
from advfeat.estimates import Estimate
from advfeat.models import Classifier
from advfeat.threats import L2
from advfeat.transfer import Transfer, other_classes, transfer

pytestmark = pytest.mark.numbers

SIZE = 2
PIXELS = 3 * SIZE * SIZE


def linear(directions: Tensor, bias: Tensor) -> Classifier:
    """Logits x · direction + bias on the pixels themselves, whatever the normalisation."""
    model = Classifier(nn.Flatten(), nn.Linear(PIXELS, len(directions)))
    std, mean = (values.expand(1, 3, SIZE, SIZE).flatten() for values in (model.std, model.mean))
    with torch.no_grad():
        model.head.weight.copy_(directions * std)
        model.head.bias.copy_(bias + directions @ mean)
    return model.eval()


def above(pixel: int, threshold: float = 0.5) -> Classifier:
    """Class 1 where one pixel exceeds the threshold, else class 0."""
    direction = torch.zeros(2, PIXELS)
    direction[1, pixel] = 10.0
    return linear(direction, torch.tensor([0.0, -10 * threshold]))


def images(*first_two: tuple[float, float]) -> Tensor:
    """Grey images with given pixels 0 and 1."""
    pixels = torch.full((len(first_two), PIXELS), 0.5)
    pixels[:, :2] = torch.tensor(first_two)
    return pixels.view(-1, 3, SIZE, SIZE)


@pytest.fixture
def networks() -> dict[str, Classifier]:
    """Two that look at pixel 0, one of them late, and one that looks at pixel 1."""
    return {"first": above(0), "same": above(0, 0.38), "other": above(1)}


@pytest.fixture
def dataset() -> Dataset:
    # An attack on `first` within 0.2 moves pixel 0 by 0.2 away from the label's side and leaves pixel 1. At 0.38 and at
    # 0.5 nothing comes closer than 0.02, a tenth of the radius.
    #    pixels, label   pixel 0 attacked   first          same           other
    # 0  0.60, 0.9, 1    0.40               fooled         not            not
    # 1  0.55, 0.9, 1    0.35               fooled         fooled         not
    # 2  0.95, 0.9, 1    0.75               not            not            not
    # 3  0.45, 0.1, 0    0.65               fooled         wrong anyway   not
    # 4  0.25, 0.1, 0    0.45               not            fooled         not
    # 5  0.20, 0.9, 0    0.40               not            fooled         wrong anyway
    # 6  0.40, 0.9, 1    0.20               wrong anyway   fooled         not
    values = [(0.60, 0.9), (0.55, 0.9), (0.95, 0.9), (0.45, 0.1), (0.25, 0.1), (0.20, 0.9), (0.40, 0.9)]
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 1])
    return Dataset(images(*values), labels, ("low", "high"), "two pixels")


@pytest.mark.parametrize("batch_size", [3, 500])
def test_rates_count_what_they_say(networks, dataset, batch_size):
    found = transfer(networks, dataset, L2(0.2), steps=4, batch_size=batch_size)
    # Right at both and fooled at the source: images 0, 1 and 3; at `same` without 3.
    assert found.rate("first", "first") == Estimate.of_rate(3, 3)
    assert found.rate("first", "same") == Estimate.of_rate(1, 2)
    assert found.rate("first", "other") == Estimate.of_rate(0, 3)
    # Right at both, fooled or not: 0 to 5 at the source; without 3 at `same`, without 5 at `other`.
    assert found.rate("first", "first", among="right") == Estimate.of_rate(3, 6)
    assert found.rate("first", "same", among="right") == Estimate.of_rate(3, 5)
    assert found.rate("first", "other", among="right") == Estimate.of_rate(0, 5)
    # Of all seven: whatever is fooled or wrong anyway.
    assert found.rate("first", "first", among="all") == Estimate.of_rate(4, 7)
    assert found.rate("first", "same", among="all") == Estimate.of_rate(5, 7)
    assert found.rate("first", "other", among="all") == Estimate.of_rate(1, 7)


def test_targeted_images_must_reach_their_target():
    # Three classes: pixel 0 speaks for class 1, pixel 1 for class 2, neither for class 0.
    directions = torch.zeros(3, PIXELS)
    directions[1, 0] = directions[2, 1] = 10.0
    sees_both = linear(directions, torch.tensor([0.0, -5.0, -5.0]))
    sees_one = linear(directions * torch.tensor([1.0, 1.0, 0.0])[:, None], torch.tensor([0.0, -5.0, -5.0]))
    dataset = Dataset(images((0.45, 0.45), (0.45, 0.45)), torch.tensor([0, 0]), ("a", "b", "c"), "three")
    targets = torch.tensor([1, 2])
    found = transfer({"both": sees_both, "one": sees_one}, dataset, L2(0.3), steps=6, targets=targets)
    assert found.rate("both", "both", among="all") == Estimate.of_rate(2, 2)
    # The image that was to become class 2 does not, for a network that is blind to pixel 1. An untargeted count, or
    # an attack of the wrong sign, says something else.
    assert found.rate("both", "one") == Estimate.of_rate(1, 2)
    assert found.attacked["both"]["both"].tolist() == [1, 2]
    assert found.attacked["both"]["one"].tolist()[0] == 1


def test_only_the_sources_attack_and_each_once(networks, dataset, monkeypatch):
    calls = []
    real = transfer_module.pgd

    def counted(*args, **kwargs):
        calls.append((len(args[1]), kwargs["step_size"]))
        return real(*args, **kwargs)

    monkeypatch.setattr(transfer_module, "pgd", counted)
    found = transfer(networks, dataset, L2(0.2), steps=4, sources={"other": networks["other"]}, batch_size=4)
    assert calls == [(4, 2.5 * 0.2 / 4), (3, 2.5 * 0.2 / 4)]
    assert set(found.attacked) == {"other"}
    assert set(found.attacked["other"]) == set(found.clean) == set(networks)


def test_bad_arguments_are_refused(networks, dataset):
    with pytest.raises(ValueError, match="sources must be among the models, got stranger"):
        transfer(networks, dataset, L2(0.2), steps=1, sources={"stranger": networks["first"]})
    with pytest.raises(ValueError, match="7 images but 2 targets"):
        transfer(networks, dataset, L2(0.2), steps=1, targets=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="the radius must be positive"):
        transfer(networks, dataset, L2(0.0), steps=1)
    found = transfer(networks, dataset, L2(1e-3), steps=1)
    with pytest.raises(ValueError, match="among must be 'fooled', 'right' or 'all', got 'most'"):
        found.rate("first", "same", among="most")
    with pytest.raises(ValueError, match="no image is classified as labelled by first and same and fools first"):
        found.rate("first", "same")


def test_other_classes_are_other_and_uniform():
    labels = torch.arange(10).repeat(2000)
    drawn = other_classes(labels, 10, seed=3)
    assert torch.equal(drawn, other_classes(labels, 10, seed=3))
    assert not torch.equal(drawn, other_classes(labels, 10, seed=4))
    steps = torch.bincount((drawn - labels) % 10, minlength=10)
    assert steps[0] == 0
    # 20,000 draws from nine steps: 2222 each, standard deviation 44; six of them.
    assert int((steps[1:] - 20_000 / 9).abs().max()) <= 6 * 45
    with pytest.raises(ValueError, match="classes must be 2 or more, got 1"):
        other_classes(labels, 1, seed=0)


def answered(source: list[int], target: list[int], **changes: object) -> Transfer:
    """The answers of two networks to five images that both classify correctly."""
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = {"source": torch.tensor(source), "target": torch.tensor(target)}
    clean = {"source": labels, "target": labels}
    return Transfer(**{"labels": labels, "targets": None, "clean": clean, "attacked": {"source": found}, **changes})


def test_the_same_mistake_is_compared_with_mistakes_about_other_images_of_the_class():
    found = answered([1, 1, 2, 0, 2], [1, 2, 2, 0, 0]).same_mistake("source", "target")
    assert (found.rate.value, found.rate.n) == (3 / 5, 5)
    # 2 of the 6 pairs of class 0, with 3 of the 5 images, and 1 of the 2 of class 1; over all pairs it would be 3/8.
    assert found.chance == pytest.approx(3 / 5 * 2 / 6 + 2 / 5 * 1 / 2, abs=1e-12)
    # Right after the attack, at either network: the image does not count.
    found = answered([1, 1, 0, 0, 2], [1, 2, 2, 1, 0]).same_mistake("source", "target")
    assert found.images.tolist() == [True, True, False, False, True]
    assert (found.rate.value, found.chance) == (1 / 3, 1 / 2)


def test_of_the_same_mistake_a_record_takes_what_exists():
    # Wilson's interval of so many images would be that of a rate, and chance is of pairs of images.
    found = answered([1, 1, 2, 0, 2], [1, 2, 2, 0, 0]).same_mistake("source", "target")
    rate, chance = found.estimates["same_mistake"], found.estimates["same_mistake_chance"]
    assert rate is found.rate
    assert (chance.value, chance.low, chance.high, chance.n, chance.rate) == (*[found.chance] * 3, rate.n, False)
    alone = answered([1, 0, 0, 1, 1], [2, 0, 0, 1, 1]).same_mistake("source", "target")
    assert list(alone.estimates) == ["same_mistake"]
    assert answered([1, 0, 0, 1, 1], [0, 1, 0, 1, 1]).same_mistake("source", "target").estimates == {}


def test_the_same_mistake_needs_mistakes():
    assert answered([1, 0, 0, 1, 1], [2, 0, 0, 1, 1]).same_mistake("source", "target").chance is None
    none = answered([1, 0, 0, 1, 1], [0, 1, 0, 1, 1]).same_mistake("source", "target")
    assert none.rate is none.chance is None
    assert not none.images.any()
    aimed = answered([1, 1, 1, 0, 0], [1, 1, 1, 0, 0], targets=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="targeted"):
        aimed.same_mistake("source", "target")
