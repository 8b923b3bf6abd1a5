"""The figures of the Gaussian theory: two classes, their robust fits, and how gradients align with the means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from advfeat.gaussian import (
    Gaussians,
    alignment,
    attack_on_average,
    robust_mle,
    worst_alignment,
)
from advfeat.pages import plots
from advfeat.pages.identity import GREY, OTHERS, colors_of
from advfeat.pages.interactive import Interactive

SLIDER_POINTS = 120  # of each class, drawn in the browser


def two_classes(
    world: Gaussians, x: Float[Tensor, "n 2"], y: Float[Tensor, " n"], features: Mapping[str, Float[Tensor, "2"]]
) -> Figure:
    """Samples of the two classes with their level sets, and the usefulness of linear features by the radius."""
    figure, (left, right) = plt.subplots(2, 1, figsize=(6.4, 6.0), height_ratios=(1.15, 1))
    for label, color in ((1, OTHERS[0]), (-1, OTHERS[1])):
        left.scatter(*x[y == label][:300].T, s=7, color=color, alpha=0.35, lw=0)
        for radius in (1, 2):
            plots.level_set(
                left,
                label * world.mean,
                world.covariance,
                radius=radius,
                color=color,
            )
        left.plot(
            *label * world.mean,
            "o",
            color=color,
            mec="black",
            ms=8,
            label=f"$y={label:+d}$",
        )
    left.set(
        xlabel="first coordinate",
        ylabel="second coordinate",
        aspect="equal",
        xlim=(-6, 6),
        ylim=(-3, 3),
    )
    left.legend(loc="upper left")

    radii = np.linspace(0, 1.1, 50)
    for (name, w), color in zip(
        {**features, "maximum likelihood": world.weights()}.items(),
        (OTHERS[4], OTHERS[3], GREY),
        strict=True,
    ):
        right.plot(
            radii,
            [world.usefulness(w, eps=eps) for eps in radii],
            color=color,
            label=name,
        )
    right.axhline(0, color="black", lw=1)
    right.set(
        xlabel=r"radius $\epsilon$",
        ylabel=r"usefulness $\gamma_\epsilon$",
        ylim=(-0.9, 0.75),
    )
    right.legend(loc="upper right")
    return figure


def robust_fits(world: Gaussians, x: Float[Tensor, "n 2"], y: Float[Tensor, " n"], radii: Sequence[float]) -> Figure:
    """The paper's Figure 4: the robust fit at four radii, its classifier's gradient, and the adversary's moves."""
    halo = [withStroke(linewidth=3, foreground="white")]
    shown = {label: x[y == label][:160] for label in (1, -1)}
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 5.6), sharex=True, sharey=True)
    for axis, eps in zip(axes.flat, radii, strict=True):
        fit = robust_mle(world, eps=eps)
        w = fit.weights()
        for label, color in ((1, OTHERS[0]), (-1, OTHERS[1])):
            dots = shown[label]
            axis.scatter(*dots.T, s=8, color=color, alpha=0.4, lw=0)
            for radius in (1, 2):
                plots.level_set(
                    axis,
                    label * fit.mean,
                    fit.covariance,
                    radius=radius,
                    color=color,
                    lw=1.8,
                )
            towards = attack_on_average(fit, dots, torch.full_like(dots[:, 0], label), eps=eps)
            axis.plot(
                *torch.stack([dots, towards], 1)[:9].permute(2, 1, 0),
                color=color,
                lw=1.1,
            )
            axis.scatter(*dots[:9].T, s=16, color=color, lw=0, zorder=3)
        across = torch.stack([-w[1], w[0]]) / w.norm()
        axis.plot(*torch.stack([-12 * across, 12 * across]).T, "--", color="black", lw=1.2)
        for vector, color, name in (
            (fit.mean, "black", r"$\mu$"),
            (w, OTHERS[3], r"$\Sigma^{-1}\mu$"),
        ):
            tip = 2.8 * vector / vector.norm()
            plots.arrow(axis, tip, color=color)
            offset = (7, -9) if name == r"$\mu$" else (2, 4)
            axis.annotate(
                name,
                tip.tolist(),
                xytext=offset,
                textcoords="offset points",
                color=color,
                fontsize=12,
                zorder=6,
                path_effects=halo,
            )
        angle = np.degrees(np.arccos(alignment(fit.mean, fit.covariance)))
        axis.set_title(rf"$\epsilon={eps:g}$: {angle:.0f}° apart")
        axis.set(xlim=(-6.2, 6.2), ylim=(-4.6, 4.6), aspect="equal")
        corner = axis.inset_axes([0.79, 0.02, 0.2, 0.27])
        unit = fit.covariance / torch.linalg.det(fit.covariance).sqrt()
        plots.level_set(corner, torch.zeros(2), torch.eye(2), color=GREY, lw=1.6)
        plots.level_set(corner, torch.zeros(2), unit, color=OTHERS[3], lw=1.6)
        corner.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal")
        corner.spines[:].set_visible(True)
        corner.spines[:].set_color("#D1D5DB")
        corner.grid(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("second coordinate")
    for axis in axes[1]:
        axis.set_xlabel("first coordinate")
    return figure


def alignment_by_radius(
    wide: Float[Tensor, "d d"], means: Float[Tensor, "n d"], radii: Sequence[float], lines: np.ndarray
) -> Figure:
    """How gradient and class direction align, by the radius and by the condition of the fit, with the bound.

    Args:
        wide: covariance of the data.
        means: class directions.
        radii: of the adversary.
        lines: the alignment of each direction at each radius.
    """
    fitted = [robust_mle(Gaussians(means[0], wide), eps=eps).covariance for eps in radii]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4), sharey=True)
    left.plot(radii, lines.T, color=OTHERS[0], lw=0.7, alpha=0.45)
    left.plot([], [], color=OTHERS[0], lw=0.7, label=r"60 directions $\mu$")
    left.plot(
        radii,
        [worst_alignment(covariance) for covariance in fitted],
        color=OTHERS[3],
        lw=3,
        label="worst direction",
    )
    left.set(
        xlabel=r"radius $\epsilon$",
        ylabel=r"$\cos(\mu,\,\Sigma_r^{-1}\mu)$",
        xlim=(0, 8),
        ylim=(0.17, 1.02),
    )
    left.set_xscale("function", functions=(np.sqrt, np.square))
    left.set_xticks([0, 0.1, 0.5, 1, 2, 5], ["0", "0.1", "0.5", "1", "2", "5"])
    left.legend(loc="lower right")
    conditions = np.geomspace(1, 80, 200)
    right.plot(
        conditions,
        2 * np.sqrt(conditions) / (1 + conditions),
        color=OTHERS[3],
        lw=3,
    )
    for eps in (0, 0.25, 0.5, 1, 2, 5):
        covariance = robust_mle(Gaussians(means[0], wide), eps=eps).covariance
        kappa = float(covariance.diagonal().max() / covariance.diagonal().min())
        right.plot(
            [kappa] * len(means),
            [alignment(mean, covariance) for mean in means],
            ".",
            color=OTHERS[0],
            ms=3,
            alpha=0.5,
        )
        right.plot(
            kappa,
            worst_alignment(covariance),
            "o",
            color=OTHERS[3],
            mec="white",
            ms=9,
        )
        right.annotate(
            rf"$\epsilon={eps:g}$",
            (kappa, worst_alignment(covariance)),
            xytext=(-6, -16),
            textcoords="offset points",
            ha="right",
        )
    right.set(xscale="log", xlabel=r"condition number $\kappa(\Sigma_r)$")
    right.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.minorticks_off()
    return figure


def accuracy_by_radius(
    world: Gaussians, radii: Sequence[float], best: Sequence[float], fitted_at: Sequence[float]
) -> Figure:
    """The exact accuracy of some robust fits by the radius of the test, and of the best linear rule at each radius."""
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    axis.plot(radii, best, color="#D1D5DB", lw=6, label="best linear rule")
    labels = [rf"fitted at $\epsilon={eps:g}$" for eps in fitted_at]
    for eps, label, color in zip(fitted_at, labels, colors_of(labels), strict=True):
        w = robust_mle(world, eps=eps).weights()
        curve = [world.accuracy(w, eps=radius) for radius in radii]
        axis.plot(radii, curve, color=color, label=label)
    axis.axhline(0.5, color="black", lw=1, ls=":")
    axis.set(xlabel=r"radius of the test", ylabel="robust accuracy")
    axis.legend()
    return figure


def radius_slider(
    world: Gaussians, x: Float[Tensor, "n 2"], y: Float[Tensor, " n"], radii: Sequence[float], still: Sequence[float]
) -> Interactive:
    """The paper's Figure 4 with a slider: the robust fit at each of many radii, and four of them as a picture.

    Args:
        world: the two classes.
        x: a sample; of each class some points are drawn, and the adversary's moves of nine.
        y: its labels.
        radii: stops of the slider.
        still: the four radii of the picture.
    """
    dots = {label: x[y == label][:SLIDER_POINTS] for label in (1, -1)}
    stops = []
    for eps in radii:
        fit = robust_mle(world, eps=eps)
        w = fit.weights()
        few = {label: of[:9] for label, of in dots.items()}
        moved = [attack_on_average(fit, of, torch.full_like(of[:, 0], label), eps=eps) for label, of in few.items()]
        stops.append(
            {
                "radius": float(eps),
                "mean": _rounded(fit.mean),
                "covariance": _rounded(fit.covariance),
                "gradient": _rounded(w / w.norm()),
                "angle": round(float(np.degrees(np.arccos(alignment(fit.mean, fit.covariance)))), 3),
                "accuracy": [round(world.accuracy(w, eps=test), 3) for test in (0.0, eps)],
                "moved": [_rounded(points) for points in moved],
            }
        )
    data = {"points": [_rounded(dots[label]) for label in (1, -1)], "stops": stops}
    angles = {stop["radius"]: stop["angle"] for stop in stops}
    turned = ", ".join(f"{angles[eps]:.0f}° at radius {eps:g}" for eps in still if eps in angles)
    alt = (
        "Four panels with the same two flat clouds of points and the ellipses of the robust fit, one radius each. "
        f"The angle between the direction of the classes and the gradient: {turned}."
    )
    return Interactive("gaussians", data, robust_fits(world, x, y, still), alt=alt)


def _rounded(numbers: Tensor) -> list[Any]:
    rounded: list[Any] = np.round(numbers.numpy(), 3).tolist()
    return rounded
