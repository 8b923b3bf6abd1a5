"""The figures of the Gaussian theory: fits and adversaries of ``gaussian``, drawn with the parts in ``plots``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    attack_at_price,
    attack_on_average,
    multiplier,
    robust_mle,
    vulnerability,
    worst_alignment,
)
from advfeat.pages import plots
from advfeat.pages.plots import BLUE, GREEN, GREY, ORANGE, RED


def two_classes(
    world: Gaussians, x: Float[Tensor, "n 2"], y: Float[Tensor, " n"], features: Mapping[str, Float[Tensor, "2"]]
) -> Figure:
    """Samples of the two classes with their level sets, and the usefulness of linear features by the radius."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(1.5, 1))
    for label, color in ((1, BLUE), (-1, GREEN)):
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
    left.legend(loc="upper left", ncols=2)

    radii = np.linspace(0, 1.1, 50)
    for (name, w), color in zip(
        {**features, "maximum likelihood": world.weights()}.items(),
        (ORANGE, RED, GREY),
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
    right.legend(loc="upper right", fontsize=10)
    return figure


def vulnerability_and_condition(of: Gaussians, *, price: float, generator: torch.Generator) -> Figure:
    """The vulnerability at three prices by the condition of Σ, simulated too, and over all Σ of the trace of ``of``."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.9), width_ratios=(1, 1.05))
    for c, color in ((2.5, RED), (5, ORANGE), (20, BLUE)):
        last = 2 * c - 1  # here the smaller eigenvalue, 2 / (1 + κ), is 1 / C
        conditions = np.geomspace(1, 0.995 * min(last, 30), 200)
        curve = []
        for kappa in conditions:
            spectrum = torch.tensor([2 / (1 + kappa), 2 * kappa / (1 + kappa)], dtype=torch.float64)
            curve.append(vulnerability(torch.diag(spectrum), price=c))
        left.plot(conditions, curve, color=color, label=f"$C={c:g}$")
        for place in np.searchsorted(conditions, np.geomspace(1.2, 0.85 * min(last, 30), 5)):
            kappa = conditions[place]
            spectrum = torch.tensor([2 / (1 + kappa), 2 * kappa / (1 + kappa)], dtype=torch.float64)
            one = Gaussians(torch.ones(2, dtype=torch.float64), torch.diag(spectrum))
            at, label = one.sample(20_000, generator=generator)
            moved = attack_at_price(one, at, label, price=c)
            gain = one.loss(moved, label) - one.loss(at, label)
            left.plot(kappa, 2 * gain.mean(), "o", color=color, mec="white", ms=7)
    left.set(
        xscale="log",
        yscale="log",
        ylim=(0.1, 200),
        xlabel=r"condition number $\kappa(\Sigma_*)$",
        ylabel=r"$L_{\mathrm{adv}}-L$",
    )
    left.set_xticks([1, 2, 5, 10, 30], ["1", "2", "5", "10", "30"])
    left.minorticks_off()
    left.legend(loc="upper left")

    side = np.linspace(0, 1, 601)
    first, height = np.meshgrid(side, side)
    third = height  # barycentric coordinates of a triangle of side 1 and scaled height 1
    second = first - third / 2
    shares = np.stack([1 - second - third, second, third])
    eigenvalues = float(of.covariance.trace()) * shares
    inside = eigenvalues.min(0) > 1 / price + 0.005
    gap = np.full_like(first, np.nan)
    gap[inside] = ((1 + 1 / (price * eigenvalues[:, inside] - 1)) ** 2).sum(0) - 3
    right.fill([0, 1, 0.5], [0, 0, 3**0.5 / 2], color="#E5E7EB", lw=0)
    filled = right.contourf(
        first,
        height * 3**0.5 / 2,
        np.log10(gap),
        levels=np.arange(-0.25, 3.3, 0.25),
        cmap="YlOrRd",
    )
    right.plot([0, 1, 0.5, 0], [0, 0, 3**0.5 / 2, 0], color=GREY, lw=1.2)
    own = of.covariance.diagonal().numpy() / float(of.covariance.trace())
    for (_, b, c), marker, text, shift in (
        ((1 / 3, 1 / 3, 1 / 3), "o", r"$1.3\,I$", (9, -4)),
        (own, "D", "diag(3, 0.2, 0.7)", (12, -4)),
    ):
        spot = (b + c / 2, c * 3**0.5 / 2)
        right.plot(*spot, marker, color="black", mec="white", ms=8)
        right.annotate(text, spot, xytext=shift, textcoords="offset points", fontsize=10)
    for spot, text, va in (
        ((0, -0.03), "$s_1$", "top"),
        ((1, -0.03), "$s_2$", "top"),
        ((0.5, 0.885), "$s_3$", "bottom"),
    ):
        right.text(*spot, text, ha="center", va=va, fontsize=12)
    right.set(aspect="equal", xlim=(-0.05, 1.05), ylim=(-0.1, 0.97))
    right.axis("off")
    bar = figure.colorbar(
        filled,
        ax=right,
        ticks=[0, 1, 2, 3],
        shrink=0.8,
        label=r"$L_{\mathrm{adv}}-L$",
    )
    bar.ax.set_yticklabels(["1", "10", "100", "1000"])
    return figure


def price_and_deviation(of: Gaussians) -> Figure:
    """The price λ by the radius, with its two limits, and the standard deviations of the robust fit."""
    spectrum = of.covariance.diagonal()
    radii = np.geomspace(1e-3, 100, 80)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5))
    left.plot(
        radii,
        [multiplier(of.covariance, eps=eps) for eps in radii],
        color=BLUE,
        label=r"$\lambda(\epsilon)$",
    )
    left.plot(
        radii,
        float((1 / spectrum).sum().sqrt()) / radii,
        "--",
        color=RED,
        lw=1.3,
        label=r"$\sqrt{\mathrm{tr}\,\Sigma_*^{-1}}\,/\,\epsilon$",
    )
    left.plot(radii, 3 / radii**2, ":", color="black", lw=1.6, label=r"$d\,/\,\epsilon^2$")
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1e-4, 1e4),
        xlabel=r"radius $\epsilon$",
        ylabel=r"price $\lambda$",
    )
    left.legend()

    radii = np.geomspace(0.01, 30, 60)
    deviations = np.array([robust_mle(of, eps=eps).covariance.diagonal().sqrt().numpy() for eps in radii])
    for i, color in enumerate((BLUE, RED, GREEN)):
        right.plot(
            radii,
            deviations[:, i],
            color=color,
            label=rf"$s_*={float(spectrum[i]):g}$",
        )
    right.set(
        xscale="log",
        yscale="log",
        xlabel=r"radius $\epsilon$",
        ylabel=r"standard deviation $\sqrt{s_r}$",
    )
    right.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    right.minorticks_off()
    right.legend()
    return figure


def robust_fits(world: Gaussians, x: Float[Tensor, "n 2"], y: Float[Tensor, " n"], radii: Sequence[float]) -> Figure:
    """The paper's Figure 4: the robust fit at four radii, its classifier's gradient, and what the adversary does."""
    halo = [withStroke(linewidth=3, foreground="white")]
    shown = {label: x[y == label][:160] for label in (1, -1)}
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 7.0), sharex=True, sharey=True)
    for axis, eps in zip(axes.flat, radii, strict=True):
        fit = robust_mle(world, eps=eps)
        w = fit.weights()
        for label, color in ((1, BLUE), (-1, GREEN)):
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
            (w, RED, r"$\Sigma^{-1}\mu$"),
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
        axis.set_title(rf"$\epsilon={eps:g}$: {angle:.0f}° between $\mu$ and the gradient")
        axis.set(xlim=(-6.2, 6.2), ylim=(-4.6, 4.6), aspect="equal")
        corner = axis.inset_axes([0.79, 0.02, 0.2, 0.27])
        unit = fit.covariance / torch.linalg.det(fit.covariance).sqrt()
        plots.level_set(corner, torch.zeros(2), torch.eye(2), color=GREY, lw=1.6)
        plots.level_set(corner, torch.zeros(2), unit, color=RED, lw=1.6)
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.7), sharey=True)
    left.plot(radii, lines.T, color=BLUE, lw=0.7, alpha=0.45)
    left.plot([], [], color=BLUE, lw=0.7, label=r"60 directions $\mu$")
    left.plot(
        radii,
        [worst_alignment(covariance) for covariance in fitted],
        color=RED,
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
        color=RED,
        lw=3,
    )
    for eps in (0, 0.25, 0.5, 1, 2, 5):
        covariance = robust_mle(Gaussians(means[0], wide), eps=eps).covariance
        kappa = float(covariance.diagonal().max() / covariance.diagonal().min())
        right.plot(
            [kappa] * len(means),
            [alignment(mean, covariance) for mean in means],
            ".",
            color=BLUE,
            ms=3,
            alpha=0.5,
        )
        right.plot(
            kappa,
            worst_alignment(covariance),
            "o",
            color=RED,
            mec="white",
            ms=9,
        )
        right.annotate(
            rf"$\epsilon={eps:g}$",
            (kappa, worst_alignment(covariance)),
            xytext=(-6, -16),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    right.set(xscale="log", xlabel=r"condition number $\kappa(\Sigma_r)$")
    right.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.minorticks_off()
    return figure


def training_distances(distances: Mapping[tuple[int, str], Float[Tensor, " rounds"]]) -> Figure:
    """The distance to the robust fit by the round of training, for (dimension, name of the attack)."""
    colors = {2: RED, 10: ORANGE, 100: BLUE}
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    for (d, name), distance in distances.items():
        relaxed = name == "attack_on_average"
        axis.plot(distance, "-" if relaxed else "--", color=colors[d], label=f"$d={d}$" if relaxed else None)
    axis.plot([], "-", color=GREY, label="budget on average")
    axis.plot([], "--", color=GREY, label="budget for each point")
    axis.set(yscale="log", xlabel="round", ylabel=r"relative distance to $\Sigma_r$")
    axis.legend(loc="lower left")
    return figure


def relaxation_gaps(
    dims: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    checked: Sequence[int],
    equal: Mapping[str, Sequence[float]],
    unequal: Mapping[str, Sequence[float]],
) -> Figure:
    """What the relaxation costs, by the dimension: the formula at ``dims``, and optimised fits at ``checked``.

    Args:
        lines: name → gap at each of ``dims``, for equal eigenvalues.
        equal: name → gap at each of ``checked``, for equal eigenvalues; ``unequal`` for half of them low, half high.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    for (name, line), color in zip(lines.items(), (RED, BLUE), strict=True):
        axis.plot(dims, line, color=color, label=name)
        axis.plot(checked, equal[name], "o", mfc="white", color=color, ms=9)
        axis.plot(checked, unequal[name], "o--", color=color, lw=1, ms=6)
    axis.set(xscale="log", yscale="log", xlabel="dimension $d$", ylabel="relative gap of eigenvalues")
    axis.set_xticks(checked, [f"{d}" for d in checked])
    axis.minorticks_off()
    axis.legend()
    return figure


def accuracy_by_radius(
    world: Gaussians, radii: Sequence[float], best: Sequence[float], fitted_at: Sequence[float]
) -> Figure:
    """The exact accuracy of some robust fits by the radius of the test, and of the best linear rule at each radius."""
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    axis.plot(radii, best, color="#D1D5DB", lw=6, label="best linear rule")
    for eps, color in zip(fitted_at, (RED, ORANGE, GREEN, BLUE), strict=True):
        w = robust_mle(world, eps=eps).weights()
        curve = [world.accuracy(w, eps=radius) for radius in radii]
        axis.plot(radii, curve, color=color, label=rf"fitted at $\epsilon={eps:g}$")
    axis.axhline(0.5, color="black", lw=1, ls=":")
    axis.set(xlabel=r"radius of the test", ylabel="robust accuracy")
    axis.legend()
    return figure
