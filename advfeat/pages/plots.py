"""Numbers and estimates to axes of matplotlib, in the style of the book. Nothing is computed here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from advfeat.pages.identity import COLORS, GREY, OTHERS, SMALLEST, colors_of, colors_of_bars, key_of, markers_of, tints


@runtime_checkable
class Interval(Protocol):
    """A value with its interval: an ``estimates.Estimate``."""

    value: float
    low: float
    high: float


def use_style() -> None:
    """Set the book's look for every figure made from here on: white paper, quiet axes, readable type."""
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 11.5,
            "axes.titlesize": 11.5,
            "axes.labelsize": 11.5,
            "xtick.labelsize": SMALLEST,
            "ytick.labelsize": SMALLEST,
            "legend.fontsize": SMALLEST,
            "legend.title_fontsize": SMALLEST,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": "black",
            "ytick.labelcolor": "black",
            "axes.prop_cycle": cycler(color=OTHERS),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E7EB",
            "legend.frameon": False,
            "legend.handlelength": 1.6,
            "lines.linewidth": 2,
        }
    )


def accuracy_curve(
    axis: Axes,
    eps: Sequence[float],
    estimates: Sequence[Interval],
    *,
    label: str,
    color: str | None = None,
    marker: str = "",
    ls: str = "-",
) -> None:
    """Accuracy against the radius, with a band for the interval; by default in the colour and marker of the label."""
    color = color or (colors_of([label])[0] if key_of(label) else None)
    (line,) = axis.plot(
        eps,
        [item.value for item in estimates],
        marker=marker or markers_of([label])[0],
        label=label,
        color=color,
        ls=ls,
    )
    axis.fill_between(
        eps,
        [item.low for item in estimates],
        [item.high for item in estimates],
        color=line.get_color(),
        alpha=0.18,
        lw=0,
    )
    axis.set(ylim=(-0.02, 1.02), xlabel=r"radius $\epsilon$", ylabel="accuracy")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def accuracy_curves(
    axis: Axes,
    curves: Mapping[str, Mapping[float, Interval]],
    *,
    colors: Sequence[Any] = (),
    styles: Sequence[str] = ("-",),
    published: Mapping[str, Mapping[float, float]] | None = None,
    xlabel: str = r"radius $\epsilon$",
    logarithmic: bool = False,
) -> None:
    """``accuracy_curve`` for each name, from {place on the axis: estimate}; diamonds where others published values.

    Colours are by default those of the names, and ``styles`` those of the lines, in turn. ``logarithmic`` spaces the
    places by their logarithms, with a tick at each.
    """
    shades, marks = colors or colors_of(list(curves)), markers_of(list(curves))
    for (label, points), color, marker, ls in zip(curves.items(), shades, marks, itertools.cycle(styles)):
        accuracy_curve(axis, list(points), list(points.values()), label=label, color=color, marker=marker, ls=ls)
        theirs = (published or {}).get(label, {})
        drawn = axis.lines[-1].get_color()
        axis.plot(list(theirs), list(theirs.values()), "D", color=drawn, markeredgecolor="black", markersize=6)
    axis.set_xlabel(xlabel)
    if logarithmic:
        ticks = list(next(iter(curves.values())))
        axis.set_xscale("log")
        axis.set(xticks=ticks, xticklabels=ticks)
        axis.minorticks_off()


def accuracy_bars(
    axis: Axes,
    estimates: Mapping[str, Interval],
    *,
    chance: float | None = None,
    paper: Mapping[str, float] | None = None,
) -> None:
    """One bar with its interval per name, in its colour; dashed: chance, diamond: the paper's value, where given."""
    names = list(estimates)
    values = [estimates[name].value for name in names]
    errors = [
        [max(0.0, item.value - item.low) for item in estimates.values()],
        [max(0.0, item.high - item.value) for item in estimates.values()],
    ]
    width = 0.62
    axis.bar(names, values, yerr=errors, capsize=4, width=width, color=colors_of(names), ecolor=GREY)
    for place, value in enumerate(values):
        axis.annotate(
            f"{value:.1%}",
            (place, estimates[names[place]].high),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
        )
    if paper:
        known = [name for name in names if name in paper]
        axis.plot(
            # At the edge of the bar: in its middle stands the value.
            [names.index(name) + width / 2 for name in known],
            [paper[name] for name in known],
            "D",
            color="black",
            markersize=7,
            label="paper",
        )
    if chance is not None:
        axis.axhline(chance, color=GREY, ls="--", lw=1.2, label="chance")
    if paper or chance is not None:
        axis.legend(loc="upper right")
    axis.set(ylim=(0, 1.08), ylabel="test accuracy")
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def usefulness_plane(axis: Axes, *, lowest: float) -> None:
    """Axes for ρ (across) and γ (up, from ``lowest``): γ = ρ bounds all features, below γ = 0 they are non-robust."""
    axis.axhspan(lowest, 0, color=COLORS["standard"], alpha=0.05, lw=0)
    axis.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls="--")
    axis.axhline(0, color=GREY, lw=1.2)
    axis.set(xlim=(-0.02, 1.02), ylim=(lowest, 1.02), xlabel=r"usefulness $\rho$", ylabel=r"robust usefulness $\gamma$")


def grouped_bars(
    axis: Axes,
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    paper: Mapping[tuple[str, str], float] | None = None,
) -> None:
    """One group of bars per outer name, one bar with its interval per inner name, the same in every group.

    The colours are those of ``identity.colors_of_bars``. ``paper`` puts a diamond at (outer name, inner name) where it
    has a value.

    Raises:
        ValueError: the groups hold different names.
    """
    names = list(next(iter(groups.values())))
    if any(list(bars) != names for bars in groups.values()):
        raise ValueError(f"every group must hold {', '.join(names)}, got {[list(bars) for bars in groups.values()]}")
    width = 0.84 / len(names)
    looks = colors_of_bars(list(groups), names)
    marks: dict[float, float] = {}
    for index, name in enumerate(names):
        items = [bars[name] for bars in groups.values()]
        places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(groups))]
        errors = [
            [max(0.0, item.value - item.low) for item in items],
            [max(0.0, item.high - item.value) for item in items],
        ]
        axis.bar(
            places, [item.value for item in items], yerr=errors, width=0.92 * width, capsize=2, label=name,
            color=[fill for fill, _ in looks[index]], edgecolor=[edge for _, edge in looks[index]], ecolor=GREY,
        )  # fmt: skip
        for place, group, item in zip(places, groups, items, strict=True):
            published = (paper or {}).get((group, name))
            if published is not None:
                marks[place] = published
            # Above whatever stands there: the whisker, or the diamond and its half height.
            top, room = max((item.high, 3), (-1.0 if published is None else published, 6))
            axis.annotate(
                f"{item.value:z.0%}",
                (place, top),
                xytext=(0, room),
                textcoords="offset points",
                ha="center",
                fontsize=SMALLEST - 0.5,
            )
    if marks:
        axis.plot(list(marks), list(marks.values()), "D", color="black", markersize=6, label="paper")
    axis.set(ylim=(0, 1.12), ylabel="test accuracy", xticks=range(len(groups)), xticklabels=list(groups))
    legend = axis.legend(ncols=len(names) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for patch, shade in zip(legend.get_patches(), tints(GREY, len(names)), strict=True):
        if not any(map(key_of, names)):  # colours are those of the groups: the legend shows the tints alone
            patch.set(facecolor=shade, edgecolor=GREY)
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def rate_matrix(axis: Axes, rates: Sequence[Sequence[Interval]], names: Sequence[str]) -> None:
    """Rates from row to column as shades, with the percent written in each cell; the same ``names`` on both sides."""
    values = np.array([[item.value for item in row] for row in rates])
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*values.shape):
        dark = values[row, column] > 0.55
        axis.text(
            column, row, f"{100 * values[row, column]:.0f}",
            ha="center", va="center", color="white" if dark else "black",
        )  # fmt: skip
    places = range(len(names))
    axis.set(xticks=places, xticklabels=names, yticks=places, yticklabels=names)
    axis.set(xlabel="shown to", ylabel="made with")
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def rate_scatter(axis: Axes, points: Mapping[str, tuple[Interval, Interval]]) -> None:
    """Named points of two rates each, with both intervals."""
    looks = zip(colors_of(list(points)), markers_of(list(points)), strict=True)
    for (name, (across, up)), (color, marker) in zip(points.items(), looks, strict=True):
        axis.errorbar(
            across.value, up.value,
            xerr=[[max(0.0, across.value - across.low)], [max(0.0, across.high - across.value)]],
            yerr=[[max(0.0, up.value - up.low)], [max(0.0, up.high - up.value)]],
            fmt=marker, ms=8, elinewidth=1, capsize=2, label=name, color=color,
        )  # fmt: skip
    for each in (axis.xaxis, axis.yaxis):
        # Whole percents: ticks at 12.5 and 17.5 would be rounded to 12 and 18.
        each.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        each.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend()


def learning_curves(
    axis: Axes, curves: Mapping[str, Sequence[float]], *, ylabel: str, colors: Sequence[str | None] | None = None
) -> None:
    """Accuracies against the epoch, from 1: one line per name, in the given colours or those of the names."""
    for (name, values), color in zip(curves.items(), colors or colors_of(list(curves)), strict=True):
        axis.plot(range(1, len(values) + 1), values, label=name, marker="o", markersize=3, color=color)
    axis.set(xlabel="epoch", ylabel=ylabel)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()


def level_set(
    axis: Axes,
    centre: Float[Tensor, "2"],
    covariance: Float[Tensor, "2 2"],
    *,
    radius: float = 1.0,
    color: str,
    lw: float = 2.0,
) -> None:
    """The ellipse on which (x - centre)ᵀ covariance⁻¹ (x - centre) = radius²."""
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    axis.plot(*(centre.numpy()[:, None] + radius * np.linalg.cholesky(covariance.numpy()) @ circle), color=color, lw=lw)


def arrow(axis: Axes, vector: Float[Tensor, "2"], *, color: str) -> None:
    """An arrow from the origin to ``vector``, above whatever else is drawn."""
    style = {"arrowstyle": "-|>", "color": color, "lw": 2.6, "mutation_scale": 18, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (float(vector[0]), float(vector[1])), (0, 0), arrowprops=style, zorder=5)
