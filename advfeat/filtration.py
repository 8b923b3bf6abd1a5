"""Adversarial filtration: ordinary images that several networks all get wrong, and how many there are by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Estimate


@dataclass(frozen=True, eq=False)
class Filtered:
    """The images that every one of some networks misses: natural adversarial examples.

    Attributes:
        missed: which images these are.
        rate: their share.
        chance: the share if the networks' mistakes were independent of each other within each class: the mean over all
            images of the product of the networks' error rates on the class of the image.
    """

    missed: Bool[Tensor, " n"]
    rate: Estimate
    chance: float


@dataclass(frozen=True)
class Judged:
    """How another network does on filtered images.

    Attributes:
        accuracy: on the filtered images.
        chance: its accuracy there if its mistakes were independent of the others' within each class: on all images,
            weighted by the classes of the filtered ones.
    """

    accuracy: Estimate
    chance: float


def filtered(answers: Mapping[str, Int[Tensor, " n"]], labels: Int[Tensor, " n"]) -> Filtered:
    """The images that all networks miss.

    Args:
        answers: network → the class that it gives to each image, see ``measures.predictions``.
        labels: classes of the images.

    Raises:
        TypeError, ValueError: no network or no image; answers or labels of another type, number or sign.

    Source: the adversarial filtration of Hendrycks et al. 2021, who filter by one ResNet-50; the filter by several
    networks and the comparison with chance are ours.
    """
    inputs.instance("answers", answers, Mapping, "a mapping from networks to their answers")
    if not answers:
        raise ValueError("answers must be of one network or more, got none")
    _check_labels(labels)
    wrong = torch.stack([_wrong(given, labels, f"answers[{name!r}]") for name, given in answers.items()])
    missed = wrong.all(0)
    each_class = torch.stack([wrong[:, labels == label].double().mean(1) for label in labels.unique()], 1)
    share = torch.stack([(labels == label).double().mean() for label in labels.unique()])
    chance = float((each_class.prod(0) * share).sum())
    return Filtered(missed, Estimate.of_rate(int(missed.sum()), len(labels)), chance)


def judged(answers: Int[Tensor, " n"], labels: Int[Tensor, " n"], missed: Bool[Tensor, " n"]) -> Judged:
    """How a network that took no part in the filter does on the filtered images.

    Args:
        answers: its answers to all images.
        missed: ``Filtered.missed``.

    Raises:
        TypeError, ValueError: arguments of another type or number, or no image is missed.
    """
    _check_labels(labels)
    right = ~_wrong(answers, labels, "answers")
    inputs.tensor("missed", missed, "n", inputs.BOOL, like="labels", n=len(labels))
    if not bool(missed.any()):
        raise ValueError(f"missed must hold one image or more, got none of {len(missed)}")
    rates = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
    for label in labels.unique():
        rates[label] = right[labels == label].double().mean()
    accuracy = Estimate.of_rate(int(right[missed].sum()), int(missed.sum()))
    return Judged(accuracy, float(rates[labels[missed]].mean()))


def _check_labels(labels: Tensor) -> None:
    inputs.labels(labels)
    if not len(labels):
        raise ValueError("labels must be of one image or more, got none")
    inputs.look(("labels", labels, (0, torch.inf)))


def _wrong(given: Tensor, labels: Tensor, name: str) -> Tensor:
    inputs.tensor(name, given, "n", inputs.INT64, like="labels", n=len(labels))
    inputs.look((name, given, (0, torch.inf)))
    return given != labels
