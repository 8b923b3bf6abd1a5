"""Whole figures of chapter 13, on the attack engine: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from advfeat.pages.identity import GREY, OTHERS, SMALLEST

_COLORS = {"resnet18": OTHERS[0], "resnet9": OTHERS[4], "vgg16": OTHERS[1]}


def contest(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Chapter 13: time over ours of every contender, with quartiles from five pairs on; one panel per title.

    Args:
        panels: title → rows of ``contest``: contender, network, ratio, pairs, lower, upper.
    """
    heights = [len(rows) + 1 for rows in panels.values()]
    size = (6.4, 0.8 + 0.26 * sum(heights))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, height_ratios=heights)
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        labels = [f"{row['contender']}, {row['network']}" for row in rows]
        for place, row in enumerate(rows):
            if row["pairs"] >= 5:
                axis.plot([row["lower"], row["upper"]], [place] * 2, color=GREY)
            axis.plot(row["ratio"], place, "o", color=_COLORS.get(row["network"], GREY))
        axis.axvline(1, color=GREY, ls="--", lw=1.2)
        axis.set(yticks=range(len(rows)), yticklabels=labels, title=title)
        axis.invert_yaxis()
    axes[-1].set_xlabel("time over ours")
    return figure


def growth(series: Mapping[str, Sequence[float]]) -> Figure:
    """Chapter 13: time, and memory where measured, by steps and by images, as multiples of the first."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.0))
    for axis, name in zip(axes, ("steps", "images"), strict=True):
        x = series[name]
        axis.plot(x, [value / x[0] for value in x], "--", color=GREY)
        axis.plot(x, series[f"time_by_{name}"], "o-", label="time")
        if f"memory_by_{name}" in series:
            axis.plot(x, series[f"memory_by_{name}"], "s-", color=OTHERS[1], label="memory")
        axis.set(xlabel=name, ylabel="multiple of the first", ylim=(0, None))
        axis.legend()
    return figure


def roofline(ridge: Sequence[float]) -> Figure:
    """Chapter 13: the parts of a step under the roof of the machine.

    Args:
        ridge: operations per byte and share of the matrix rate, of the convolutions and of the update; rate of a step.
    """
    x0, x1 = 0.5 * min(ridge[0], ridge[2], 1), 3 * max(ridge[0], 1)
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    axis.plot([x0, 1, x1], [x0, 1, 1], color="black", label="the machine")
    axis.plot(ridge[0], ridge[1], "o", ms=9, label="convolutions")
    axis.plot(ridge[2], ridge[3], "s", ms=9, label="update of the images")
    axis.axhline(ridge[4], color=GREY, ls="--", lw=1.2, label="whole step")
    axis.set(xscale="log", yscale="log", xlim=(x0, x1))
    axis.set_xlabel("operations per byte, corner = 1")
    axis.set_ylabel("share of the matrix rate")
    axis.legend()
    return figure


def minimal_filtering(
    tile: Float[Tensor, "6 6"], filters: Float[Tensor, "3 3"], transforms: Sequence[Float[Tensor, "_ _"]]
) -> Figure:
    """Chapter 13: one tile and one filter through F(4×4, 3×3), in the order of the computation.

    Colours go by the root of an entry's share of the largest in its panel, red below zero.

    Args:
        transforms: of outputs (4, 6), filter (6, 3) and inputs (6, 6).
    """
    of_outputs, of_filter, of_inputs = transforms
    inside, kernel = of_inputs @ tile @ of_inputs.T, of_filter @ filters @ of_filter.T
    product = inside * kernel
    panels = {
        "tile": ("$d$", tile), "filter": ("$w$", filters),
        "inside": ("$B^T d\\,B$", inside), "kernel": ("$G\\,w\\,G^T$", kernel),
        "product": (r"product, $\odot$", product),
        "output": ("$A^T(\\ldots)A$", of_outputs @ product @ of_outputs.T),
    }  # fmt: skip
    layout = "tipo;fkpo"  # two rows of panels; product and output reach over both
    figure, axes = plt.subplot_mosaic(layout, figsize=(6.4, 3.8))
    for name, (title, values) in panels.items():
        axis, middle = axes[name[0]], (len(values) - 1) / 2
        shown = values.sign() * (values.abs() / values.abs().max()).sqrt()  # small entries are seen, too
        axis.imshow(shown.numpy(), cmap="RdBu", vmin=-1, vmax=1)
        for edge in range(1, len(values)):
            axis.plot([edge - 0.5] * 2, [-0.5, len(values) - 0.5], color="white", lw=0.8)
            axis.plot([-0.5, len(values) - 0.5], [edge - 0.5] * 2, color="white", lw=0.8)
        axis.text(middle, -0.7, title, ha="center", va="bottom")
        axis.text(middle, len(values) - 0.3, f"{len(values)}×{len(values)}", ha="center", va="top", fontsize=SMALLEST)
        # Panels have six entries' width, so an entry is as large in each.
        axis.set(xlim=(middle - 3.8, middle + 3.1), ylim=(middle + 4.2, middle - 4.4))
        axis.axis("off")
        if name not in ("tile", "filter"):
            style = {"arrowstyle": "->", "color": GREY}
            axis.annotate("", (-0.6, middle), (-2.1, middle), arrowprops=style, annotation_clip=False)
    return figure


def layer_rates(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Chapter 13: the rate of each layer as a multiple of the machine's, by PyTorch and by the library.

    Args:
        networks: name → its layers, each with ``name``, ``direct_share`` and ``ours_share``.
    """
    rows = [(network, row) for network, layers in networks.items() for row in layers]
    figure, axis = plt.subplots(figsize=(6.4, 1.2 + 0.26 * len(rows)))
    for place, (network, row) in enumerate(rows):
        axis.plot([row["direct_share"], row["ours_share"]], [place] * 2, color=GREY, lw=1)
        axis.plot(row["direct_share"], place, "s", color=OTHERS[4], ms=5, label="" if place else "oneDNN, direct")
        axis.plot(row["ours_share"], place, "o", color=OTHERS[0], ms=6, label="" if place else "this library")
        if place and network != rows[place - 1][0]:
            axis.axhline(place - 0.5, color="black", lw=0.6)
    for bound in (1, 4):
        axis.axvline(bound, color=GREY, ls="--", lw=1.2)
    axis.set_yticks(range(len(rows)), [f"{network}  {row['name']}" for network, row in rows])
    axis.set(xlim=(0, 4.2), xlabel="direct operations a second, over the machine's")
    axis.invert_yaxis()
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def gate_errors(errors: Mapping[str, tuple[float, float]]) -> Figure:
    """Chapter 13: for each case the bound as a bar, and the largest error as a dot; case → (error, bound)."""
    floor, names = 1e-9, list(errors)  # for the eye: an error of 0 has no place on this axis
    figure, axis = plt.subplots(figsize=(6.4, 4.4))
    axis.barh(names, [bound for _, bound in errors.values()], color="#DBEAFE", label="bound")
    axis.plot([max(error, floor) for error, _ in errors.values()], names, "o", color=OTHERS[0], label="largest error")
    axis.set(xscale="log", xlim=(floor / 2, 1e-3), xlabel="pixel units")
    axis.invert_yaxis()
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def parts_of_step(shares: Mapping[str, float]) -> Figure:
    """Chapter 13: the shares of one step side by side in one bar."""
    figure, axis = plt.subplots(figsize=(6.4, 1.9))
    place = 0.0
    for (name, share), color in zip(shares.items(), OTHERS[:5:2], strict=True):
        axis.barh([0], max(0.0, share), left=place, color=color, height=0.5, label=name)
        place += max(0.0, share)
    axis.set(xlim=(0, max(1.0, place)), yticks=[], xlabel="share of one step")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.45, 1.5), columnspacing=1)
    axis.grid(False, axis="y")
    return figure


def still_right(shares: Sequence[float]) -> Figure:
    """Chapter 13: the share of images that are still right, after 0, 1, 2, ... steps."""
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    axis.fill_between(range(len(shares)), shares, color=OTHERS[0], alpha=0.18, lw=0)
    axis.plot(range(len(shares)), shares, marker="o", markersize=4)
    axis.set(ylim=(-0.02, 1.02), xlabel="steps of PGD", ylabel="not yet fooled")
    axis.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def steps_taken(gap: Float[Tensor, " n"], rules: Mapping[str, Float[Tensor, " n"]]) -> Figure:
    """Chapter 13: the share of a step that each rule takes, by the gap between the largest logit and the others."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for label, share in rules.items():
        axis.plot(gap, share, label=label)
    axis.set(xlabel="gap between the largest logit and the others")
    axis.set_ylabel("share of the step taken")
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
