"""Whole figures of chapter 6, on adversarial images of one network that are shown to others."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.pages import plots
from advfeat.pages.dataset_figures import ARCHITECTURES, SETS, SHORT
from advfeat.pages.plots import Interval


def learning_and_transfer(panels: Mapping[str, tuple[Mapping[str, Interval], Mapping[str, Interval]]]) -> Figure:
    """Chapter 6: transfer to an architecture against its accuracy after D_det: the paper's Figure 3, one or more.

    Args:
        panels: title → the accuracies and the transfer rates, both by the keys of ``ARCHITECTURES``.
    """
    rows = -(-len(panels) // 2)
    size, columns = ((6.2, 4.4), 1) if len(panels) == 1 else ((6.4, 3.1 * rows), 2)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, (learned, fooled)) in zip(axes.flat, panels.items(), strict=False):
        plots.rate_scatter(axis, {name: (learned[key], fooled[key]) for key, name in ARCHITECTURES.items()})
        axis.set(title=title, xlabel=f"accuracy, trained on {SETS['D_det']}")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("transfer from the source")
        if len(panels) > 1:  # one legend for all, in the free place if there is one
            axis.get_legend().remove()
    if len(panels) > 1:
        place = (
            {"loc": "lower right", "bbox_to_anchor": (0.92, 0.1)}
            if len(panels) % 2
            else {"loc": "outside lower center"}
        )
        figure.legend(*axes.flat[0].get_legend_handles_labels(), **place, ncols=1 if len(panels) % 2 else 3)
    return figure


def transfer_matrix(rates: Mapping[tuple[str, str], Interval], *, title: str = "") -> Figure:
    """Chapter 6: how often the images of one network fool another, all with all.

    Args:
        rates: (who made the images, who is shown them) → rate, for every two keys of ``SHORT``.
        title: above the matrix.
    """
    figure, axis = plt.subplots(figsize=(5.6, 4.9))
    plots.rate_matrix(axis, [[rates[row, column] for column in SHORT] for row in SHORT], list(SHORT.values()))
    axis.set_title(title)
    return figure
