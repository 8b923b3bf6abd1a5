"""The figures of the chapter on evaluation: distances, budgets and intervals in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from advfeat.pages.identity import ANSWERS, GREY, WIDEST, colors_of, markers_of
from advfeat.pages.plots import Interval


def distance_curves(
    distances: Mapping[str, Float[Tensor, " n"]],
    medians: Mapping[str, Interval],
    single: Mapping[str, Mapping[float, Interval]],
) -> Figure:
    """Accuracy at every radius from one run of a minimum-norm attack: a panel per network, each on its own scale.

    Args:
        distances: of each image from the nearest adversarial image found.
        medians: of the distances, drawn as a whisker at one half.
        single: radius → accuracy under an attack that was run at this radius only, drawn as points.
    """
    figure, axes = plt.subplots(1, len(distances), figsize=(WIDEST, 3.2), sharey=True, squeeze=False)
    for axis, color, (name, found) in zip(axes.flat, colors_of(list(distances)), distances.items(), strict=True):
        far = 1.6 * float(found[found.isfinite()].quantile(0.8))
        radii = torch.linspace(0, far, 400)
        axis.plot(radii, [float((found > radius).float().mean()) for radius in radii.tolist()], color=color)
        points = single[name]
        bars = [
            [item.value - item.low for item in points.values()],
            [item.high - item.value for item in points.values()],
        ]
        axis.errorbar(
            list(points), [item.value for item in points.values()], yerr=bars, fmt="o", ms=5, color="black", capsize=3,
            lw=1.2, label="PGD, one run a point",
        )  # fmt: skip
        middle = medians[name]
        axis.plot([middle.low, middle.high], [0.5, 0.5], color=color, lw=6, alpha=0.4, label="median, 95% interval")
        axis.set(title=name, xlabel=r"radius $\epsilon$", xlim=(0, far), ylim=(-0.02, 1.02))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0, 0].set_ylabel("accuracy under attack")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def budget_curves(panels: Mapping[str, Mapping[str, Sequence[tuple[float, Interval]]]]) -> Figure:
    """Accuracy against the passes through the network for an image: panel → attack → (passes, accuracy)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDEST, 3.2), sharey=True, squeeze=False)
    for axis, (title, attacks) in zip(axes.flat, panels.items(), strict=True):
        looks = zip(colors_of(list(attacks)), markers_of(list(attacks)), strict=True)
        for (color, marker), (name, points) in zip(looks, attacks.items(), strict=True):
            passes, found = [at for at, _ in points], [estimate for _, estimate in points]
            axis.plot(passes, [item.value for item in found], marker=marker, ms=4.5, color=color, label=name)
            axis.fill_between(
                passes, [item.low for item in found], [item.high for item in found], color=color, alpha=0.15, lw=0
            )
        axis.set(title=title, xlabel="passes for an image", xscale="log", ylim=(-0.02, 1.02))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0, 0].set_ylabel("accuracy under attack")
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def by_network(groups: Mapping[str, Mapping[str, Interval]], names: Sequence[str]) -> Figure:
    """The accuracies of several networks, side by side for each attack: attack → network → accuracy.

    Args:
        names: of the networks, from left to right.
    """
    figure, axis = plt.subplots(figsize=(WIDEST, 3.4))
    for index, (color, (label, found)) in enumerate(zip((GREY, *ANSWERS), groups.items(), strict=True)):
        places = [place + 0.2 * (index - 1) for place in range(len(names))]
        axis.vlines(
            places, [found[name].low for name in names], [found[name].high for name in names], color=color, lw=2
        )
        axis.plot(places, [found[name].value for name in names], "o", color=color, label=label)
    axis.set(xticks=range(len(names)), xticklabels=list(names), ylim=(-0.03, 1.03), ylabel="accuracy")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(loc="center right")
    return figure


def intervals(differences: Mapping[str, Interval]) -> Figure:
    """Differences of two accuracies with their intervals, one line each, and a line at no difference."""
    figure, axis = plt.subplots(figsize=(WIDEST, 0.5 * len(differences) + 1))
    for place, (color, item) in enumerate(zip(colors_of(list(differences)), differences.values(), strict=True)):
        axis.plot([item.low, item.high], [place, place], color=color, lw=3, solid_capstyle="butt")
        axis.plot(item.value, place, "o", color=color, ms=7)
    axis.axvline(0, color=GREY, lw=1, ls="--")
    axis.set_yticks(range(len(differences)), list(differences))
    axis.set(ylim=(len(differences) - 0.5, -0.5), xlabel="difference of the two accuracies")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
