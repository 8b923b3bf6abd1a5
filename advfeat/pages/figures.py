"""Whole figures that one chapter shows, made of the parts in ``plots``: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.pages import plots
from advfeat.pages.plots import BLUE, RED, Interval


def rate_scatters(panels: Mapping[str, Mapping[str, tuple[Interval, Interval]]], *, xlabel: str, ylabel: str) -> Figure:
    """Chapter 6: named points of two rates each, one panel per title, on the same axes."""
    size = (3.5 * len(panels) + 0.4, 3.9)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (title, points) in zip(axes[0], panels.items(), strict=True):
        plots.rate_scatter(axis, points)
        axis.set(title=title, xlabel=xlabel)
    axes[0][0].set_ylabel(ylabel)
    return figure


def recognised_by(
    panels: Mapping[str, Mapping[str, Sequence[Interval]]], names: Sequence[str], *, colors: Sequence[str] = (BLUE, RED)
) -> Figure:
    """Chapter 8: how often each judge recognises a picture; judge → one rate for each of ``names``, for every panel."""
    figure, axes = plt.subplots(1, len(panels), figsize=(8.4, 3.5), sharey=True)
    places = range(len(names))
    for axis, (title, rates) in zip(axes, panels.items(), strict=True):
        for shift, ((judge, found), color) in enumerate(zip(rates.items(), colors, strict=True)):
            axis.errorbar(
                [place + 0.16 * (2 * shift - 1) for place in places],
                [item.value for item in found],
                yerr=[
                    [max(0, item.value - item.low) for item in found],
                    [max(0, item.high - item.value) for item in found],
                ],
                fmt="o", ms=9, capsize=4, color=color, label=f"{judge} judge",
            )  # fmt: skip
        axis.set(xticks=places, xticklabels=names, xlim=(-0.5, len(names) - 0.5), ylim=(-0.03, 1.05), title=title)
    axes[0].set_ylabel("recognised")
    axes[0].legend(loc="upper left")
    return figure
