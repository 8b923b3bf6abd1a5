"""The figures of the chapter on frequencies: maps, spectra and rates in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from advfeat.pages.identity import GREY, WIDEST, colors_of, markers_of
from advfeat.pages.plots import Interval


def heat_maps(
    maps: Mapping[str, Float[Tensor, "h w"]],
    *,
    marked: Bool[Tensor, "h w"] | None = None,
    columns: int = 4,
    top: float | None = None,
    title: str = "",
) -> Figure:
    """Error by frequency, one panel per network, on one scale from 0; rings around the frequencies that are ``marked``.

    Args:
        columns: panels in a row.
        top: the error at the end of the scale; by default the largest of all maps.
    """
    rows, side = -(-len(maps) // columns), min(2.5, (WIDEST - 0.9) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns + 0.9, (side + 0.3) * rows), squeeze=False)
    top = top or max(float(errors.max()) for errors in maps.values())
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    for axis, (name, errors) in zip(axes.flat, maps.items(), strict=False):
        drawn = _map(axis, errors, top=top)
        if marked is not None:
            down, across = np.nonzero(marked.numpy())
            middle = [size // 2 for size in errors.shape]
            axis.plot(across - middle[1], down - middle[0], "o", ms=7, mfc="none", mec="white", mew=0.9)
        axis.set_title(name)
    for axis in axes[-1]:
        axis.set_xlabel("waves across")
    for axis in axes[:, 0]:
        axis.set_ylabel("waves down")
    bar = figure.colorbar(drawn, ax=axes, aspect=20 * rows, shrink=0.9, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("error")
    figure.suptitle(title)
    return figure


def _map(axis: Axes, errors: Tensor, *, top: float) -> AxesImage:
    """One map, with the constant in the middle of its entry and waves counted from there."""
    height, width = errors.shape
    edges = (-(width // 2) - 0.5, width - width // 2 - 0.5, height - height // 2 - 0.5, -(height // 2) - 0.5)
    drawn = axis.imshow(errors.numpy(), vmin=0, vmax=top, cmap="inferno", extent=edges, interpolation="nearest")
    axis.grid(False)
    axis.set(xticks=(-12, 0, 12), yticks=(-12, 0, 12))
    return drawn


def radial_spectra(
    panels: Mapping[str, Mapping[str, Float[Tensor, " radii"]]], *, marked: Sequence[float] = (), ylabel: str = "power"
) -> Figure:
    """Power against the number of waves per image, each curve in shares of its own sum; one panel per title.

    ``marked`` are numbers of waves at which a dotted line stands.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDEST, 3.6), sharey=True, squeeze=False)
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for place in marked:
            axis.axvline(place, color=GREY, ls=":", lw=1.2)
        looks = zip(colors_of(list(curves)), markers_of(list(curves)), strict=True)
        for index, ((name, power), (color, marker)) in enumerate(zip(curves.items(), looks, strict=True)):
            # Each curve has its markers at places of its own: of two that coincide, both are seen.
            drawn = {"marker": marker, "ms": 5, "markevery": (index % 4, 4), "color": color, "lw": 1.8}
            axis.plot(range(len(power)), (power / power.sum()).numpy(), label=name, **drawn)
        axis.set(yscale="log", xlabel="waves per image", title=title)
        axis.legend(handlelength=1.2, borderaxespad=0.1, labelspacing=0.3)
    axes[0][0].set_ylabel(ylabel)
    return figure


def rates_by_network(
    groups: Mapping[str, Mapping[str, Interval]], *, xlabel: str = "", ylabel: str = "error"
) -> Figure:
    """A rate with its interval for each network, side by side in each group; the same networks in every group."""
    figure, axis = plt.subplots(figsize=(WIDEST, 3.6))
    names = list(next(iter(groups.values())))
    looks = zip(colors_of(names), markers_of(names), strict=True)
    for index, (name, (color, marker)) in enumerate(zip(names, looks, strict=True)):
        items = [found[name] for found in groups.values()]
        places = [place + 0.11 * (index - (len(names) - 1) / 2) for place in range(len(groups))]
        axis.errorbar(
            places, [item.value for item in items],
            yerr=[
                [max(0.0, item.value - item.low) for item in items],
                [max(0.0, item.high - item.value) for item in items],
            ],
            fmt=marker, ms=6.5, elinewidth=1.2, capsize=2, label=name, color=color,
        )  # fmt: skip
    axis.set(xticks=range(len(groups)), xticklabels=list(groups), xlim=(-0.5, len(groups) - 0.5), ylim=(0, None))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(False, axis="x")
    axis.legend(ncols=min(4, len(names)), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
