"""Figures of chapter 8, of the parts in ``plots``: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.pages.identity import colors_of, markers_of
from advfeat.pages.plots import Interval


def recognised_by(panels: Mapping[str, Mapping[str, Sequence[Interval]]], names: Sequence[str]) -> Figure:
    """Chapter 8: how often each judge recognises a picture; judge → one rate for each of ``names``, for every panel."""
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4, 3.5), sharey=True)
    places = range(len(names))
    for axis, (title, rates) in zip(axes, panels.items(), strict=True):
        looks = zip(colors_of(list(rates)), markers_of(list(rates)), strict=True)
        for shift, ((judge, found), (color, marker)) in enumerate(zip(rates.items(), looks, strict=True)):
            axis.errorbar(
                [place + 0.16 * (2 * shift - 1) for place in places],
                [item.value for item in found],
                yerr=[
                    [max(0, item.value - item.low) for item in found],
                    [max(0, item.high - item.value) for item in found],
                ],
                fmt=marker, ms=9, capsize=4, color=color, label=f"{judge} judge",
            )  # fmt: skip
        axis.set(xticks=places, xticklabels=names, xlim=(-0.5, len(names) - 0.5), ylim=(-0.03, 1.05), title=title)
    axes[0].set_ylabel("recognised")
    axes[0].legend(loc="upper left")
    return figure
