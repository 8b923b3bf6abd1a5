"""Datasets made from a dataset and a model: D_rand and D_det."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from advfeat.attacks import Threat, pgd
from advfeat.data import Dataset
from advfeat.models import Classifier, freeze
from advfeat.progress import progress


@runtime_checkable
class Shards(Protocol):
    """Where finished pieces of a dataset wait for the rest, such as ``store.DatasetShards``."""

    def load(self, start: int) -> Tensor | None:
        """The images from row ``start`` on, or None if that piece is not finished."""

    def save(self, start: int, images: Tensor) -> None:
        """Keep a finished piece; either wholly written or not at all."""


def random_target_dataset(
    model: Classifier,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    seed: int,
    batch_size: int = 500,
    shards: Shards | None = None,
) -> Dataset:
    """D_rand: every image attacked towards a class drawn at random, and given that class as its label.

    x_adv = argmin over the threat of L(x', t) with t uniform over *all* classes (so t = y one time in ten); the pair
    (x_adv, t) is kept. To a person the labels look random: only what the attack put in ties them to the images.

    See ``deterministic_target_dataset`` for arguments and errors. ``seed`` draws the targets.

    Source: section 3.2 of Ilyas et al. 2019.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(dataset.num_classes, (len(dataset),), generator=generator).to(dataset.labels.device)
    return _attacked_towards(
        model, dataset, targets, threat, "D_rand", steps, step_size, batch_size=batch_size, shards=shards
    )


def deterministic_target_dataset(
    model: Classifier,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    batch_size: int = 500,
    shards: Shards | None = None,
) -> Dataset:
    """D_det: every image attacked towards the next class, t = (y + 1) mod classes, and given it as its label.

    Here the robust features of an image point to the class *before* its label, so they mislead on ordinary images.

    Args:
        model: the standard model that is attacked.
        threat: the ball around each image, such as ``L2(0.5)``.
        steps: PGD steps, from the image itself.
        step_size: their length in pixel units.
        batch_size: images per piece; finished pieces go to ``shards``, so that a run that was stopped goes on.

    Returns:
        A dataset of the same size and order, whose ``truth["source_labels"]`` are the original labels.

    Raises:
        ValueError: from ``pgd``, or ``batch_size`` is not positive.

    Source: section 3.2 of Ilyas et al. 2019.
    """
    targets = (dataset.labels + 1) % dataset.num_classes
    return _attacked_towards(
        model, dataset, targets, threat, "D_det", steps, step_size, batch_size=batch_size, shards=shards
    )


def _attacked_towards(
    model: Classifier,
    dataset: Dataset,
    targets: Int[Tensor, " n"],
    threat: Threat,
    name: str,
    steps: int,
    step_size: float,
    *,
    batch_size: int,
    shards: Shards | None,
) -> Dataset:
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    frozen = freeze(model)
    images = torch.empty_like(dataset.images)
    with progress(total=len(dataset), unit="img", description=name) as bar:
        for start in range(0, len(dataset), batch_size):
            rows = slice(start, start + batch_size)
            piece = shards.load(start) if shards is not None else None
            # A piece of another batch size is no use, and one row would fill a whole batch without a word.
            if piece is None or piece.shape != dataset.images[rows].shape:
                piece = pgd(
                    frozen, dataset.images[rows], targets[rows], threat, steps=steps, step_size=step_size, targeted=True
                )
                if shards is not None:
                    shards.save(start, piece)
            images[rows] = piece
            bar.update(len(piece))
    return dataset.replace(
        images=images,
        labels=targets,
        name=name,
        truth={**dataset.truth, "source_labels": dataset.labels},
        info={"from": dict(dataset.info), "threat": str(threat), "steps": steps, "step_size": step_size},
    )
