"""The figures of the relaxed adversary: the price of its budget, its gain, and the cost of the relaxation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from advfeat.gaussian import Gaussians, attack_at_price, multiplier, robust_mle, vulnerability
from advfeat.pages.identity import GREY, OTHERS


def vulnerability_and_condition(of: Gaussians, *, price: float, generator: torch.Generator) -> Figure:
    """The vulnerability at three prices by the condition of Σ, simulated too, and over all Σ of the trace of ``of``."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.3), width_ratios=(1, 1.05))
    for c, color in ((2.5, OTHERS[3]), (5, OTHERS[4]), (20, OTHERS[0])):
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
    left.legend(loc="lower right", bbox_to_anchor=(1.02, -0.02))

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
        right.annotate(text, spot, xytext=shift, textcoords="offset points")
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.3))
    left.plot(
        radii,
        [multiplier(of.covariance, eps=eps) for eps in radii],
        color=OTHERS[0],
        label=r"$\lambda(\epsilon)$",
    )
    left.plot(
        radii,
        float((1 / spectrum).sum().sqrt()) / radii,
        "--",
        color=OTHERS[3],
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
    for i, color in enumerate((OTHERS[0], OTHERS[3], OTHERS[1])):
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


def training_distances(distances: Mapping[tuple[int, str], Float[Tensor, " rounds"]]) -> Figure:
    """The distance to the robust fit by the round of training, for (dimension, name of the attack)."""
    colors = {2: OTHERS[3], 10: OTHERS[4], 100: OTHERS[0]}
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
    """The cost of the relaxation, by the dimension: the formula at ``dims``, and optimised fits at ``checked``.

    Args:
        lines: name → gap at each of ``dims``, for equal eigenvalues.
        equal: name → gap at each of ``checked``, for equal eigenvalues; ``unequal`` for half of them low, half high.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    for (name, line), color in zip(lines.items(), (OTHERS[3], OTHERS[0]), strict=True):
        axis.plot(dims, line, color=color, label=name)
        axis.plot(checked, equal[name], "o", mfc="white", color=color, ms=9)
        axis.plot(checked, unequal[name], "o--", color=color, lw=1, ms=6)
    axis.set(xscale="log", yscale="log", xlabel="dimension $d$", ylabel="relative gap of eigenvalues")
    axis.set_xticks(checked, [f"{d}" for d in checked])
    axis.minorticks_off()
    axis.legend()
    return figure
