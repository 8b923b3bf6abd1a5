"""Pictures to matplotlib figures: grids and sheets of images, and images beside their perturbations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from advfeat.pages.identity import SMALLEST, WIDEST

TALLEST = 8.0  # inches of all pictures above each other: a screen shows them at once


def image_grid(
    images: Float[Tensor, "rows columns 3 h w"],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    scale: float = 1.0,
) -> Figure:
    """A grid of images in [0, 1], unsmoothed, with labels left of the rows, above the columns and under the images.

    Of many columns the second half stands below the first, with the same row labels, so that a phone shows all of them.

    Raises:
        ValueError: labels or captions do not match the grid.
    """
    rows, columns = images.shape[:2]
    given = [("row_labels", row_labels, rows), ("column_labels", column_labels, columns), ("captions", captions, rows)]
    for name, labels, count in [*given, *(("captions", row, columns) for row in captions)]:
        if labels and len(labels) != count:
            raise ValueError(f"{name} must have {count} entries, got {len(labels)}")
    across = _across(columns, labelled=bool(column_labels or captions))
    blocks, beside = -(-columns // across), _room(row_labels)
    side = min(scale, (WIDEST - beside) / across, TALLEST / (blocks * rows))
    below = [max((text.count("\n") + 1 for text in row if text), default=0) for row in captions] or [0] * rows
    above = max((text.count("\n") + 1 for text in column_labels), default=0)
    height = blocks * (rows * (side + 0.06) + 0.2 * (sum(below) + above))
    figure, axes = plt.subplots(blocks * rows, across, figsize=(side * across + beside, height + 0.1), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    pixels = images.detach().cpu().permute(0, 1, 3, 4, 2).clamp(0, 1).numpy()
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for row, column in np.ndindex(rows, columns):
        axis = axes[column // across * rows + row][column % across]
        axis.imshow(pixels[row, column], interpolation="nearest")
        if captions:
            axis.set_xlabel(captions[row][column], fontsize=SMALLEST, labelpad=2)
        if column_labels and row == 0:
            axis.set_title(column_labels[column], fontsize=SMALLEST, pad=3)
        if row_labels and column % across == 0:
            axis.set_ylabel(row_labels[row], rotation=0, ha="right", va="center", fontsize=SMALLEST)
    return figure


def picture_sheet(
    path: Path, row_labels: Sequence[str], *, column_labels: Sequence[str] = (), title: str = ""
) -> Figure:
    """A stored sheet of pictures (``Record.sheet``), unsmoothed, with labels left of its rows and below its columns.

    Of many columns the second half stands below the first. Without labels the pictures are taken to be square.
    """
    picture = plt.imread(path)
    tall = picture.shape[0] / len(row_labels)
    columns = len(column_labels) or round(picture.shape[1] / tall)
    wide, across = picture.shape[1] / columns, _across(columns, labelled=bool(column_labels))
    beside, lines = _room(row_labels), max((text.count("\n") + 1 for text in column_labels), default=0)
    blocks = -(-columns // across)
    inches = min((WIDEST - beside) / across / wide, TALLEST / blocks / picture.shape[0])  # of a pixel
    height = inches * picture.shape[0] + 0.2 * lines + 0.1
    size = (inches * across * wide + beside, blocks * height + (0.25 if title else 0))
    figure, axes = plt.subplots(blocks, 1, figsize=size, squeeze=False)
    for block, axis in enumerate(axes.flat):
        first = block * across
        part = picture[:, round(first * wide) : round((first + across) * wide)]
        axis.imshow(part, interpolation="nearest")
        shown = column_labels[first : first + across]
        for edge in range(1, len(row_labels)):
            axis.axhline(edge * tall - 0.5, color="white", lw=3)
        for edge in range(1, across):
            axis.axvline(edge * wide - 0.5, color="white", lw=3)
        middles = [tall * (row + 0.5) - 0.5 for row in range(len(row_labels))]
        places = [wide * (column + 0.5) - 0.5 for column in range(len(shown))]
        axis.set(xticks=places, xticklabels=shown, yticks=middles, yticklabels=row_labels)
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
    axes[0][0].set_title(title)
    return figure


def _across(columns: int, *, labelled: bool) -> int:
    """Columns side by side: all, or half of them where they, or their labels, would be too narrow on a phone."""
    return -(-columns // 2) if columns > (6 if labelled else 8) else columns


def _room(labels: Sequence[str]) -> float:
    """Inches that the longest line of the labels takes, symbols of the paper not counted letter by letter."""
    lines = [re.sub(r"\$[^$]*\$", "DDD", label) for text in labels for label in text.split("\n")]
    return 0.12 + 0.085 * max(map(len, lines), default=0)


def amplified(perturbation: Float[Tensor, "*batch 3 h w"], *, factor: float) -> Float[Tensor, "*batch 3 h w"]:
    """A perturbation made visible: 0 is mid-grey, and changes are ``factor`` times as large."""
    return (0.5 + factor * perturbation).clamp(0, 1)


def attack_panel(
    images: Float[Tensor, "n 3 h w"],
    attacked: Float[Tensor, "n 3 h w"],
    *,
    before: Sequence[str],
    after: Sequence[str],
    factor: float = 10,
) -> Figure:
    """Three rows: images with their names ``before``, the perturbation ``factor`` times as large, and the attacked
    images with their names ``after``.

    Raises:
        ValueError: the numbers of names and images differ.
    """
    return image_grid(
        torch.stack([images, amplified(attacked - images, factor=factor), attacked]),
        row_labels=["image", f"perturbation\n× {factor:g}", "attacked"],
        captions=[before, [""] * len(images), after],
    )
