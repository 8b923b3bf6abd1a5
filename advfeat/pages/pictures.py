"""Pictures to matplotlib figures: grids and sheets of images, and images beside their perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor


def image_grid(
    images: Float[Tensor, "rows columns 3 h w"],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    scale: float = 1.0,
) -> Figure:
    """A grid of images in [0, 1], unsmoothed, with labels left of the rows, above the columns and under the images.

    Raises:
        ValueError: labels or captions do not match the grid.
    """
    rows, columns = images.shape[:2]
    given = [("row_labels", row_labels, rows), ("column_labels", column_labels, columns), ("captions", captions, rows)]
    for name, labels, count in [*given, *(("captions", row, columns) for row in captions)]:
        if labels and len(labels) != count:
            raise ValueError(f"{name} must have {count} entries, got {len(labels)}")
    lines = max((text.count("\n") + 1 for row in captions for text in row), default=0)
    height = 1.05 + (0.08 + 0.2 * lines if captions else 0.0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(scale * 1.05 * columns + 0.9, scale * height * rows + 0.2), squeeze=False
    )
    pixels = images.detach().cpu().permute(0, 1, 3, 4, 2).clamp(0, 1).numpy()
    for row in range(rows):
        for column in range(columns):
            axis = axes[row][column]
            axis.imshow(pixels[row, column], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
            if captions:
                axis.set_xlabel(captions[row][column], fontsize=10)
            if column_labels and row == 0:
                axis.set_title(column_labels[column], fontsize=12)
            if row_labels and column == 0:
                axis.set_ylabel(row_labels[row], rotation=0, ha="right", va="center", fontsize=12)
    return figure


def picture_sheet(
    path: Path, row_labels: Sequence[str], *, column_labels: Sequence[str] = (), title: str = ""
) -> Figure:
    """A stored sheet of pictures (``Record.sheet``), unsmoothed, with labels left of its rows and below its columns."""
    picture = plt.imread(path)
    height, width = picture.shape[:2]
    figure, axis = plt.subplots(figsize=(9.0, 9.0 * height / width + 0.4))
    axis.imshow(picture, interpolation="nearest")
    middles = [height / len(row_labels) * (row + 0.5) - 0.5 for row in range(len(row_labels))]
    across = [width / max(1, len(column_labels)) * (column + 0.5) - 0.5 for column in range(len(column_labels))]
    axis.set(xticks=across, xticklabels=column_labels, yticks=middles, yticklabels=row_labels, title=title)
    axis.grid(False)
    return figure


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
