"""Attacks that a reader tries: precomputed images within growing radii, on a slider."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from advfeat.pages import pictures
from advfeat.pages.interactive import Interactive, data_uri

GAIN = 10.0
"""How many times as large as it is a change is shown, as in the other figures of chapter 1."""


def attack_slider(
    within: Sequence[Float[Tensor, "n 3 h w"]],
    answers: Sequence[Float[Tensor, "n k"]],
    *,
    radii: Sequence[float],
    labels: Int[Tensor, " n"],
    classes: Sequence[str],
) -> Interactive:
    """Chapter 1: images attacked within each radius, the amplified change, and a bar for each class.

    Args:
        within: the images within each radius, in [0, 1]; at first unchanged ones.
        answers: the network's probabilities for them.
        radii: growing, from 0.
        labels: of the images.
        classes: names of the k classes.

    Raises:
        ValueError: the numbers of radii, images and answers differ, or the radii do not grow from 0.
    """
    if not len(within) == len(answers) == len(radii):
        raise ValueError(f"{len(radii)} radii need as many images and answers, got {len(within)} and {len(answers)}")
    if radii[0] != 0 or any(one >= two for one, two in itertools.pairwise(radii)):
        raise ValueError(f"radii must grow from 0, got {list(radii)}")
    names = [classes[int(label)] for label in labels]
    shown = [
        {
            "label": int(label),
            "attacked": [data_uri(images[place]) for images in within],
            "change": [
                data_uri(pictures.amplified(images[place] - within[0][place], factor=GAIN)) for images in within
            ],
            "answers": [[round(float(share), 3) for share in said[place]] for said in answers],
        }
        for place, label in enumerate(labels)
    ]
    said = [[_answer(row, classes) for row in at] for at in answers]
    few = range(0, len(radii), 2) if len(radii) > 6 else range(len(radii))
    stories = [
        f"{name}: " + ", ".join(f"{said[at][place]} at {radii[at]:g}" for at in few) for place, name in enumerate(names)
    ]
    still = pictures.image_grid(
        torch.stack([torch.stack([within[at][place] for at in few]) for place in range(len(labels))]),
        row_labels=names,
        column_labels=[f"ε = {radii[at]:g}" for at in few],
        captions=[[said[at][place].replace(" ", "\n") for at in few] for place in range(len(labels))],
    )
    data = {"classes": list(classes), "gain": GAIN, "radii": [float(eps) for eps in radii], "pictures": shown}
    alt = f"Images attacked within growing radii, and what the network answers. {'; '.join(stories)}."
    return Interactive("attacks", data, still, alt=alt)


def _answer(shares: Tensor, classes: Sequence[str]) -> str:
    """The likeliest class with its probability: ``ring 81%``."""
    return f"{classes[int(shares.argmax())]} {float(shares.max()):.0%}"
