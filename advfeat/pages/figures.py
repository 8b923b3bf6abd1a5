"""Whole figures that one chapter shows, made of the parts in ``plots``: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from advfeat.pages import plots
from advfeat.pages.plots import BLUE, GREEN, GREY, ORANGE, RED, Interval


def texture_correlation(
    textures: Float[Tensor, "k 3 h w"], correlation: Float[Tensor, "k k"], names: Sequence[str]
) -> Figure:
    """Chapter 1: the texture of each class, and how what an attack adds correlates with each of them."""
    figure = plt.figure(figsize=(9.6, 4.0))
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1.1, 1)))
    for axis, texture, label in zip(left.subplots(3, 4).flat, textures, names, strict=False):  # two places stay empty
        axis.imshow(plots.amplified(texture, factor=12).permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(label, fontsize=8, pad=2)
    for axis in left.axes:
        axis.axis("off")
    axis = right.subplots()
    image = axis.imshow(correlation.numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
    places = range(len(names))
    axis.set(xticks=places, yticks=places, yticklabels=names, xlabel="texture of class", ylabel="attacked towards")
    axis.set_xticklabels(names, rotation=90)
    axis.grid(False)
    right.colorbar(image, label="correlation", shrink=0.8)
    return figure


def feature_histograms(
    features: Mapping[str, tuple[Float[Tensor, "3 h w"], Float[Tensor, " n"]]],
    positive: Bool[Tensor, " n"],
    *,
    eps: float,
    names: tuple[str, str],
    factors: Sequence[float],
) -> Figure:
    """Chapter 2: features as pictures, their values on the two classes, and how far an adversary moves a value.

    Args:
        features: name → the picture that the feature looks for (``factors`` times as large), and its values.
        positive: which of the images are of the first class.
        eps: the adversary's radius.
        names: of the two classes.
    """
    figure, axes = plt.subplots(
        len(features), 2, figsize=(7.6, 4.6), width_ratios=(1, 2.6), constrained_layout=True, squeeze=False
    )
    for (title, (picture, values)), row, factor in zip(features.items(), axes, factors, strict=True):
        row[0].imshow(plots.amplified(picture, factor=factor).permute(1, 2, 0).numpy(), interpolation="nearest")
        row[0].set(title=title)
        row[0].axis("off")
        yes, no = values[positive], values[~positive]
        middle = (yes.mean() + no.mean()) / 2
        sigma = ((((yes - middle) ** 2).mean() + ((no - middle) ** 2).mean()) / 2).sqrt()
        for part, color, label in ((yes, BLUE, names[0]), (no, ORANGE, names[1])):
            shape = {"bins": 60, "range": (-3, 3), "density": True, "alpha": 0.6}
            row[1].hist(((part - middle) / sigma).numpy(), color=color, label=label, **shape)
        top = row[1].get_ylim()[1]
        row[1].set_ylim(0, 1.25 * top)
        row[1].plot([0, -eps / sigma], [1.12 * top] * 2, color=RED, lw=5, solid_capstyle="butt")
        row[1].text(0.08, 1.08 * top, f"reach of ε = {eps:g}", color=RED)
        row[1].set(yticks=[], xlim=(-3.2, 3.2))
    axes[0][1].legend(loc="upper left")
    axes[-1][1].set_xlabel("f(x)")
    return figure


def truth_plane(groups: Mapping[str, tuple[str, Sequence[tuple[float, float, Interval, Interval]], Any]]) -> Figure:
    """Chapter 2: measured ρ and γ with their intervals, each beside its true place, a cross.

    Args:
        groups: title → colour, (true ρ, true γ, measured ρ, measured γ) of each feature, and limits of the γ axis.
    """
    figure, panels = plt.subplots(len(groups), 1, figsize=(6.2, 5.4), sharex=True)
    for axis, (title, (color, rows, limits)) in zip(panels, groups.items(), strict=True):
        plots.usefulness_plane(axis, lowest=-2.6)
        for rho, gamma, found_rho, found_gamma in rows:
            axis.plot([found_rho.value, rho], [found_gamma.value, gamma], color=GREY, lw=0.8)
            axis.errorbar(
                found_rho.value,
                found_gamma.value,
                xerr=[[found_rho.value - found_rho.low], [found_rho.high - found_rho.value]],
                yerr=[[found_gamma.value - found_gamma.low], [found_gamma.high - found_gamma.value]],
                color=color, lw=1.3, alpha=0.7, fmt="o", ms=3,
            )  # fmt: skip
            axis.plot(rho, gamma, "x", color="black", markersize=6, mew=1.4)
        axis.set(ylim=limits, xlim=(0.6, 1.0), title=title)
    panels[0].set_xlabel("")
    return figure


def weight_paths(
    paths: Mapping[float, Float[Tensor, "steps 2"]], radii: Sequence[float], final: Float[Tensor, "r 2"]
) -> Figure:
    """Chapter 2: how training moves two weights, by the radius, and the weights that each radius ends with."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.9))
    turn = torch.linspace(0, np.pi / 2, 100)
    left.plot(turn.cos(), turn.sin(), color=GREY, lw=1)
    shades = plt.get_cmap("viridis")
    for radius, path in paths.items():
        color = shades(0.9 * radius / max(paths))
        left.plot(path[:, 0], path[:, 1], color=color, label=f"ε = {radius:g}")
        left.plot(path[-1, 0], path[-1, 1], "o", color=color, clip_on=False)
    left.set(
        xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal", xlabel="weight of the shape", ylabel="weight of the texture"
    )
    left.legend(fontsize=9, loc="lower left")
    right.plot(radii, final[:, 1] ** 2, color=RED, label="texture")
    right.plot(radii, final[:, 0] ** 2, color=BLUE, label="shape")
    right.set(xlabel="radius of training", ylabel="share of the squared weight")
    right.legend()
    return figure


def unit_planes(
    points: Mapping[str, Sequence[Float[Tensor, " units"]]], follows: Mapping[str, Float[Tensor, " units"]]
) -> Figure:
    """Chapter 2: (ρ, γ) of every unit of some networks; where known, coloured by the feature that a unit follows."""
    lowest = max(-6, min(float(up.min()) for _, up in points.values()) - 0.2)
    figure, axes = plt.subplots(1, len(points), figsize=(8.8, 4.0), sharey=True)
    for axis, (name, (across, up)) in zip(axes, points.items(), strict=True):
        plots.usefulness_plane(axis, lowest=lowest)
        shades = {"c": follows[name], "cmap": "coolwarm", "vmin": 0, "vmax": 1} if follows else {"color": BLUE}
        drawn = axis.scatter(
            across, up.clamp(min=lowest), s=26, edgecolor="white", lw=0.4, clip_on=False, **shades
        )  # fmt: skip
        axis.set(title=f"{name} network")
    axes[1].set_ylabel("")
    if follows:
        bar = figure.colorbar(drawn, ax=axes, ticks=(0, 1), shrink=0.7)
        bar.ax.set_yticklabels(["shape", "texture"])
    return figure


def class_planes(
    planes: Mapping[str, tuple[Float[Tensor, "classes units"], Float[Tensor, "classes units"]]],
    labels: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Chapter 2: (ρ, γ) of every unit, one panel per class; γ below -4 is drawn there."""
    figure, axes = plt.subplots(2, 5, figsize=(10.5, 4.8), sharex=True, sharey=True)
    for c, axis in enumerate(axes.flat):
        plots.usefulness_plane(axis, lowest=-4)
        for (name, (across, up)), color in zip(planes.items(), (RED, BLUE), strict=True):
            axis.scatter(across[c], up[c].clamp(min=-4), s=5, color=color, label=name, alpha=0.6)
        axis.set(title=labels[c], xlabel="", ylabel="")
    figure.supxlabel(r"usefulness $\rho$")
    figure.supylabel(r"robust usefulness $\gamma$")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", ncols=2, markerscale=2)
    figure.suptitle(title)
    return figure


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


def contest(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Chapter 13: time over ours of every contender, with quartiles from five pairs on; one panel per title.

    Args:
        panels: title → rows of ``contest``: contender, network, ratio, pairs, lower, upper.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(7.4, 3.2), sharex=True)
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        labels = [f"{row['contender']}, {row['network']}" for row in rows]
        for place, row in enumerate(rows):
            if row["pairs"] >= 5:
                axis.plot([row["lower"], row["upper"]], [place] * 2, color=GREY)
            axis.plot(row["ratio"], place, "o", color=BLUE if row["network"] == "resnet18" else ORANGE)
        axis.axvline(1, color=GREY, ls="--", lw=1.2)
        axis.set(yticks=range(len(rows)), yticklabels=labels, title=title)
        axis.set_xlabel("time over ours")
        axis.tick_params(axis="y", labelsize=9)
        axis.invert_yaxis()
    return figure


def growth(series: Mapping[str, Sequence[float]]) -> Figure:
    """Chapter 13: time, and memory where measured, by steps and by images, as multiples of the first."""
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.0))
    for axis, name in zip(axes, ("steps", "images"), strict=True):
        x = series[name]
        axis.plot(x, [value / x[0] for value in x], "--", color=GREY)
        axis.plot(x, series[f"time_by_{name}"], "o-", label="time")
        if f"memory_by_{name}" in series:
            axis.plot(x, series[f"memory_by_{name}"], "s-", color=GREEN, label="memory")
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
    axis.legend(fontsize=9)
    return figure


def learning_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    size: tuple[float, float],
    ylabels: Sequence[str],
    colors: Sequence[str | None] | None = None,
    title: str = "",
) -> Figure:
    """Chapter 3: accuracies by epoch, one panel for each name; ``title`` is a format of that name."""
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True)
    for axis, (name, curves), ylabel in zip(axes, panels.items(), ylabels, strict=True):
        plots.learning_curves(axis, curves, ylabel=ylabel, colors=colors)
        axis.set_title(title.format(name))
    return figure


def gate_errors(errors: Mapping[str, tuple[float, float]]) -> Figure:
    """Chapter 13: for each case the bound as a bar, and the largest error as a dot; case → (error, bound)."""
    floor, names = 1e-9, list(errors)  # for the eye: an error of 0 has no place on this axis
    figure, axis = plt.subplots(figsize=(6.4, 4.4))
    axis.barh(names, [bound for _, bound in errors.values()], color="#DBEAFE", label="bound")
    axis.plot([max(error, floor) for error, _ in errors.values()], names, "o", color=BLUE, label="largest error")
    axis.set(xscale="log", xlim=(floor / 2, 1e-3), xlabel="pixel units")
    axis.invert_yaxis()
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def parts_of_step(shares: Mapping[str, float]) -> Figure:
    """Chapter 13: the shares of one step side by side in one bar."""
    figure, axis = plt.subplots(figsize=(6.4, 1.9))
    place = 0.0
    for (name, share), color in zip(shares.items(), (BLUE, ORANGE, RED), strict=True):
        axis.barh([0], max(0.0, share), left=place, color=color, height=0.5, label=name)
        place += max(0.0, share)
    axis.set(xlim=(0, max(1.0, place)), yticks=[], xlabel="share of one step")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.45), fontsize=9)
    axis.grid(False, axis="y")
    return figure


def still_right(shares: Sequence[float]) -> Figure:
    """Chapter 13: the share of images that are still right, after 0, 1, 2, ... steps."""
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    axis.fill_between(range(len(shares)), shares, color=BLUE, alpha=0.18, lw=0)
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
    axis.legend(ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def transfer_matrix(rate: Callable[[str, str], Interval], names: Mapping[str, str], *, title: str = "") -> Figure:
    """Chapter 6: of ``rate(row, column)``, who made the images and who is shown them; key → short name on the axes."""
    figure, axis = plt.subplots(figsize=(5.6, 4.9))
    plots.rate_matrix(axis, [[rate(row, column) for column in names] for row in names], list(names.values()))
    axis.set_title(title)
    return figure
