"""Whole figures of chapters 1 and 2, on attacks and on features: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from advfeat.experiments.records import Record
from advfeat.pages import pictures, plots
from advfeat.pages.identity import COLORS, GREY, LIGHT, MARKERS, OTHERS, SMALLEST, colors_of, markers_of
from advfeat.pages.plots import Interval


def texture_correlation(
    textures: Float[Tensor, "k 3 h w"], correlation: Float[Tensor, "k k"], names: Sequence[str]
) -> Figure:
    """Chapter 1: each class's texture, times 12, above the correlation of a perturbation with each of them."""
    figure = plt.figure(figsize=(6.4, 7.4))
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.6)))
    for axis, texture, label in zip(above.subplots(2, 5).flat, textures, names, strict=True):
        axis.imshow(pictures.amplified(texture, factor=12).permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(label, fontsize=SMALLEST, pad=2)
        axis.axis("off")
    above.suptitle("textures × 12")
    axis = below.subplots()
    image = axis.imshow(correlation.numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
    places = range(len(names))
    axis.set(xticks=places, yticks=places, yticklabels=names, xlabel="texture of class", ylabel="attacked towards")
    axis.set_xticklabels(names, rotation=90)
    axis.grid(False)
    below.colorbar(image, label="correlation", shrink=0.8)
    return figure


def attack_curves(radii: Sequence[float], curves: Mapping[str, Sequence[Interval]], *, title: str = "") -> Figure:
    """Chapter 1: a standard network's accuracy by the radius, under noise, then under weaker to stronger attacks."""
    figure, axis = plt.subplots(figsize=(6.2, 3.8))
    own = COLORS["standard"]
    looks = ((GREY, "o", ":"), (own, "o", "--"), (own, MARKERS["standard"], "-"))
    for (label, curve), (color, marker, ls) in zip(curves.items(), looks, strict=True):
        plots.accuracy_curve(axis, radii, curve, label=label, color=color, marker=marker, ls=ls)
    axis.set_title(title)
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.6))
    return figure


def attacked_sheet(record: Record) -> Figure | None:
    """Chapter 1: recorded images, perturbations and attacked images with the answers; None if not recorded."""
    answers = record.first.get("tables", {}).get("attacked")
    if not answers:
        return None
    words = [f"{row['before']}\n↓\n{row['after']}" for row in answers]
    rows = ["image", "perturbation\n× 10", "attacked"]
    return pictures.picture_sheet(record.sheet("attacked"), rows, column_labels=words, title=record.title)


def planted_features(
    shapes: Float[Tensor, "k 3 h w"], textures: Float[Tensor, "k 3 h w"], names: Sequence[str]
) -> Figure:
    """Chapter 2: the shape of each class, less the mean of all shapes, above its texture; mid-grey is zero."""
    drawn = torch.stack([shapes - shapes.mean(0), textures])
    return pictures.image_grid(
        pictures.amplified(drawn, factor=1), row_labels=["shapes", "textures"], column_labels=names
    )


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
        len(features), 2, figsize=(6.4, 4.6), width_ratios=(1, 2.3), constrained_layout=True, squeeze=False
    )
    for (title, (picture, values)), row, factor in zip(features.items(), axes, factors, strict=True):
        row[0].imshow(pictures.amplified(picture, factor=factor).permute(1, 2, 0).numpy(), interpolation="nearest")
        row[0].set_title(f"{title}\n× {factor:g}", fontsize=SMALLEST)
        row[0].axis("off")
        yes, no = values[positive], values[~positive]
        middle = (yes.mean() + no.mean()) / 2
        sigma = ((((yes - middle) ** 2).mean() + ((no - middle) ** 2).mean()) / 2).sqrt()
        for part, color, label in ((yes, OTHERS[0], names[0]), (no, OTHERS[4], names[1])):
            shape = {"bins": 60, "range": (-3, 3), "density": True, "alpha": 0.6}
            row[1].hist(((part - middle) / sigma).numpy(), color=color, label=label, **shape)
        top = row[1].get_ylim()[1]
        row[1].set_ylim(0, 1.25 * top)
        row[1].plot([0, -eps / sigma], [1.12 * top] * 2, color="black", lw=5, solid_capstyle="butt")
        row[1].text(0.08, 1.08 * top, f"reach of ε = {eps:g}")
        row[1].set(yticks=[], xlim=(-3.2, 3.2))
    axes[0][1].legend(loc="upper left")
    axes[-1][1].set_xlabel("f(x)")
    return figure


def truth_plane(groups: Mapping[str, tuple[Sequence[tuple[float, float, Interval, Interval]], Any]]) -> Figure:
    """Chapter 2: measured ρ and γ with their intervals, each beside its true place, a cross.

    Args:
        groups: kind of feature → (true ρ, true γ, measured ρ, measured γ) of each feature, and limits of the γ axis.
    """
    figure, panels = plt.subplots(len(groups), 1, figsize=(6.2, 5.4), sharex=True)
    looks = zip(groups.items(), colors_of(list(groups)), strict=True)
    for axis, ((title, (rows, limits)), color) in zip(panels, looks, strict=True):
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.7))
    turn = torch.linspace(0, np.pi / 2, 100)
    left.plot(turn.cos(), turn.sin(), color=GREY, lw=1)
    shades = LinearSegmentedColormap.from_list("", [COLORS["standard"], COLORS["robust"]])
    for radius, path in paths.items():
        color = shades(radius / max(paths))
        left.plot(path[:, 0], path[:, 1], color=color, label=f"ε = {radius:g}")
        left.plot(path[-1, 0], path[-1, 1], "o", color=color, clip_on=False)
    left.set(
        xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal", xlabel="weight of the shape", ylabel="weight of the texture"
    )
    left.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, handlelength=1, columnspacing=1)
    right.plot(radii, final[:, 1] ** 2, color=COLORS["standard"], label="texture")
    right.plot(radii, final[:, 0] ** 2, color=COLORS["robust"], label="shape")
    right.set(xlabel="radius of training", ylabel="share of the squared weight")
    right.legend()
    return figure


def unit_planes(
    points: Mapping[str, Sequence[Float[Tensor, " units"]]], follows: Mapping[str, Float[Tensor, " units"]]
) -> Figure:
    """Chapter 2: (ρ, γ) of every unit of some networks; where known, coloured by the feature that a unit follows."""
    lowest = max(-6, min(float(up.min()) for _, up in points.values()) - 0.2)
    figure, axes = plt.subplots(1, len(points), figsize=(6.4, 3.5), sharey=True)
    shades = LinearSegmentedColormap.from_list("", [COLORS["robust"], LIGHT, COLORS["standard"]])
    for axis, color, (name, (across, up)) in zip(axes, colors_of(list(points)), points.items(), strict=True):
        plots.usefulness_plane(axis, lowest=lowest)
        look = {"c": follows[name], "cmap": shades, "vmin": 0, "vmax": 1} if follows else {"color": color}
        drawn = axis.scatter(
            across, up.clamp(min=lowest), s=26, edgecolor="white", lw=0.4, clip_on=False, **look
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
    figure, axes = plt.subplots(4, 3, figsize=(6.4, 7.6), sharex=True, sharey=True)
    for place, axis in enumerate(axes.flat[len(labels) :], len(labels)):
        axes.flat[place - 3].tick_params(labelbottom=True)  # the panel above is the last of its column
        axis.remove()
    for c, axis in enumerate(axes.flat[: len(labels)]):
        plots.usefulness_plane(axis, lowest=-4)
        looks = zip(colors_of(list(planes)), markers_of(list(planes)), strict=True)
        for (name, (across, up)), (color, marker) in zip(planes.items(), looks, strict=True):
            axis.scatter(across[c], up[c].clamp(min=-4), s=7, marker=marker, color=color, label=name, alpha=0.6, lw=0)
        axis.set(title=labels[c], xlabel="", ylabel="")
    figure.supxlabel(r"usefulness $\rho$")
    figure.supylabel(r"robust usefulness $\gamma$")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="lower right", bbox_to_anchor=(0.9, 0.1), markerscale=2.5
    )
    figure.suptitle(title)
    return figure
