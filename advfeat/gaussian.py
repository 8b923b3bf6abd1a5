"""Section 4 of the paper: two Gaussian classes, fitted by maximum likelihood with and without an adversary.

    y uniform on {-1, +1},  x ~ N(y μ, Σ),  ℓ(x, y; μ, Σ) = ½ log det Σ + ½ zᵀ Σ⁻¹ z + ½ d log 2π,  z = x - y μ.

Everything is computed in float64, in the eigenbasis of a covariance. There the worst perturbation under a price λ per
unit of ‖δ‖² / 2 is δ_i = z_i / (λ s_i - 1), so only the price has to be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import brentq, minimize
from scipy.special import ndtr, ndtri
from scipy.stats import qmc
from torch import Tensor

from advfeat import inputs


@dataclass(frozen=True)
class Gaussians:
    """Θ = (μ, Σ): the classes N(-μ, Σ) and N(+μ, Σ), equally frequent.

    Raises:
        TypeError: ``mean`` or ``covariance`` is not float64.
        ValueError: ``mean`` is not finite, or ``covariance`` no symmetric positive definite matrix of its size.
    """

    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]

    def __post_init__(self) -> None:
        _spectrum(self.covariance)
        inputs.tensor("mean", self.mean, "d", inputs.FLOAT64, like="covariance", d=len(self.covariance))
        inputs.look(("mean", self.mean, inputs.FINITE))

    def sample(self, n: int, *, generator: torch.Generator) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
        """n points x and their classes y in {-1, +1}; ``n`` is a whole number, 0 or more."""
        inputs.whole("n", n, least=0)
        inputs.generator(generator)
        y = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        noise = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return y[:, None] * self.mean + noise @ torch.linalg.cholesky(self.covariance).T, y

    def loss(self, x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """ℓ(x, y; μ, Σ), the negative log-likelihood of each point given its class, in nats.

        Raises:
            TypeError, ValueError: ``x`` is no float64 tensor (n, d) of finite numbers, ``y`` none (n,) of -1 and +1.
        """
        _check_sample(x, y, d=len(self.mean))
        root = torch.linalg.cholesky(self.covariance)
        white = torch.linalg.solve_triangular(root, (x - y[:, None] * self.mean).T, upper=False)
        constant = root.diagonal().log().sum() + 0.5 * len(self.mean) * math.log(2 * math.pi)
        loss: Tensor = constant + 0.5 * white.square().sum(0)
        return loss

    def weights(self) -> Float64[Tensor, " d"]:
        """w = Σ⁻¹ μ: the rule sign(wᵀ x) is the likelier class, and w is the direction of its gradient in x."""
        weights: Tensor = torch.linalg.solve(self.covariance, self.mean)
        return weights

    def _check_weights(self, weights: Tensor, eps: float) -> None:
        inputs.tensor("weights", weights, "d", inputs.FLOAT64, like="mean", d=len(self.mean))
        inputs.number("eps", eps, least=0)
        inputs.look(("weights", weights, inputs.FINITE))
        if not bool(weights.any()):
            raise ValueError("weights must not all be 0: they are no direction")

    def accuracy(self, weights: Float64[Tensor, " d"], *, eps: float = 0.0) -> float:
        """Share of points of these classes on which sign(wᵀ (x + δ)) is right for every ‖δ‖₂ ≤ eps.

        Φ((wᵀμ - eps ‖w‖₂) / √(wᵀ Σ w)), exact: the worst δ is -eps y w / ‖w‖₂.

        Raises:
            TypeError, ValueError: ``weights`` are no float64 tensor (d,), finite and not 0, or ``eps`` not in [0, ∞).
        """
        self._check_weights(weights, eps)
        margin = weights @ self.mean - eps * weights.norm()
        return float(ndtr(float(margin / (weights @ self.covariance @ weights).sqrt())))

    def usefulness(self, weights: Float64[Tensor, " d"], *, eps: float = 0.0) -> float:
        """E[min over ‖δ‖₂ ≤ eps of y f(x + δ)] for f(x) = wᵀx / c, where c makes E[f²] = 1.

        ρ at eps = 0, the robust usefulness γ beyond: (wᵀμ - eps ‖w‖₂) / √(wᵀ Σ w + (wᵀμ)²).

        Source: equations (1) and (2) of Ilyas et al. 2019.

        Raises:
            TypeError, ValueError: as ``accuracy``.
        """
        self._check_weights(weights, eps)
        along = weights @ self.mean
        return float((along - eps * weights.norm()) / (weights @ self.covariance @ weights + along**2).sqrt())


def standard_mle(x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"]) -> Gaussians:
    """The Θ that minimises the mean loss over a sample: μ = mean of y x, Σ = mean of (x - yμ)(x - yμ)ᵀ.

    Raises:
        TypeError, ValueError: ``x`` is no float64 tensor (n, d) of finite numbers, ``y`` none (n,) of -1 and +1, there
            is no point, or the points lie in a subspace, so that Σ is singular.
    """
    _check_sample(x, y)
    mean = (y[:, None] * x).mean(0)
    z = x - y[:, None] * mean
    return Gaussians(mean, z.T @ z / len(z))


def multiplier(covariance: Float64[Tensor, "d d"], *, eps: float) -> float:
    """The λ at which the robust fit to Σ_* meets its adversary: the root of tr(Σ_r(λ)⁻¹) / λ² = eps².

    The left side falls strictly, from ∞ to 0, so there is one root. It lies between those of the isotropic covariances
    s_max I and s_min I, which are explicit: λ = √d / (eps (√s + eps / √d)).

    Raises:
        ValueError: ``eps`` is not positive.
    """
    inputs.real("eps", eps)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be positive and finite, got {eps}")
    s = _spectrum(covariance)[0].numpy()
    root = math.sqrt(len(s))
    low, high = (math.log(root / (eps * (math.sqrt(end) + eps / root))) for end in (s[-1], s[0]))

    def excess(log_price: float) -> float:
        price = math.exp(log_price)
        return math.log(float((1 / _inflated(s, price)).sum())) - 2 * (log_price + math.log(eps))

    # The margin keeps the bracket from being empty where all eigenvalues are equal.
    return math.exp(brentq(excess, low - 1e-6, high + 1e-6, xtol=1e-14, rtol=1e-14))


def robust_mle(fit: Gaussians, *, eps: float) -> Gaussians:
    """The Θ that minimises the loss against an adversary of mean squared length eps²: Theorem 2 in closed form.

    The mean stays, and Σ_r = ½ Σ_* + I / λ + √(Σ_* / λ + ¼ Σ_*²) with λ from ``multiplier``. Only second moments
    of the data enter: with ``fit`` the world, this is the limit of infinitely many points; with ``fit`` the standard
    fit to a sample, it is the robust fit to that sample.

    Source: Theorem 2 of Ilyas et al. 2019.

    Raises:
        ValueError: ``eps`` is negative.
    """
    _check_fit(fit, eps)
    if eps == 0:
        return fit
    s, basis = _spectrum(fit.covariance)
    inflated = torch.from_numpy(_inflated(s.numpy(), multiplier(fit.covariance, eps=eps)))
    return Gaussians(fit.mean, _compose(basis, inflated))


def exact_robust_mle(fit: Gaussians, *, eps: float, points: int = 4096, seed: int = 0) -> Gaussians:
    """The Θ that minimises the loss against an adversary who may move *every* point by eps: no relaxation.

    By symmetry and convexity the mean and the eigenvectors stay. The logarithms of the eigenvalues minimise a convex
    function, an expectation over N(0, Σ_*). The expectation is taken over ``points`` quasi-random points (a power of
    two), scaled to have the exact second moments.

    Raises:
        ValueError: ``eps`` is negative or not finite, or ``points`` is not a power of two, 2 or more.
        RuntimeError: the optimiser did not converge.
    """
    _check_fit(fit, eps)
    inputs.whole("points", points)
    inputs.seed(seed)
    if points < 2 or points & (points - 1):
        raise ValueError(f"points must be a power of two, got {points}")
    start = _spectrum(robust_mle(fit, eps=eps).covariance)[0]
    s_star, basis = _spectrum(fit.covariance)
    uniform = qmc.Sobol(len(s_star), rng=np.random.default_rng(seed)).random(points)
    z = torch.from_numpy(ndtri(uniform))
    z = z * (s_star / (z * z).mean(0)).sqrt()

    def objective(log_s: np.ndarray) -> tuple[float, np.ndarray]:
        s = torch.from_numpy(log_s).exp()
        ratio = (z + _worst_shift(z, s, eps)).square().mean(0) / s
        return 0.5 * float(log_s.sum() + ratio.sum()), 0.5 * (1 - ratio).numpy()

    found = minimize(objective, start.log().numpy(), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-9})
    # Rounding stops the optimiser before gtol does, so the result is checked by its second moments.
    if (left := float(np.abs(2 * found.jac).max())) > 1e-6:
        raise RuntimeError(f"no robust fit at eps={eps}: the second moments are still off by {left:.1e}")
    return Gaussians(fit.mean, _compose(basis, torch.from_numpy(np.exp(found.x))))


def attack_at_price(
    fit: Gaussians, x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"], *, price: float
) -> Float64[Tensor, "n d"]:
    """x + δ with δ = argmax ℓ(x + δ, y) - price / 2 · ‖δ‖₂² = (price Σ - I)⁻¹ z.

    Raises:
        ValueError: price · s_min ≤ 1, where the adversary gains without bound.
    """
    _check_fit(fit)
    _check_sample(x, y, d=len(fit.mean))
    s, basis = _spectrum(fit.covariance)
    _check_price(s, price)
    return x + (x - y[:, None] * fit.mean) @ basis / (price * s - 1) @ basis.T


def attack_on_average(
    fit: Gaussians, x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"], *, eps: float
) -> Float64[Tensor, "n d"]:
    """x + δ that maximises the mean loss under mean ‖δ‖₂² ≤ eps²: the relaxed adversary of Theorem 2.

    Raises:
        ValueError: ``eps`` is negative.
    """
    _check_fit(fit, eps)
    _check_sample(x, y, d=len(fit.mean))
    s, basis = _spectrum(fit.covariance)
    z = (x - y[:, None] * fit.mean) @ basis
    return x + _worst_shift(z, s, eps, on_average=True) @ basis.T


def attack_each(
    fit: Gaussians, x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"], *, eps: float
) -> Float64[Tensor, "n d"]:
    """x + δ that maximises the loss of every point under ‖δ‖₂ ≤ eps: the exact adversary.

    Raises:
        ValueError: ``eps`` is negative.
    """
    _check_fit(fit, eps)
    _check_sample(x, y, d=len(fit.mean))
    s, basis = _spectrum(fit.covariance)
    return x + _worst_shift((x - y[:, None] * fit.mean) @ basis, s, eps) @ basis.T


def adversarial_training(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, " n"],
    attack: Callable[[Gaussians, Tensor, Tensor], Tensor],
    *,
    steps: int,
    rate: float,
) -> list[Gaussians]:
    """The standard fit, followed by the fit after each of ``steps`` rounds.

    A round attacks the sample and moves the fit part of the way, ``rate``, to the standard fit to the attacked sample.
    This is a natural gradient step of length ``rate`` on the attacked sample; at 1 the round refits entirely.

    Raises:
        ValueError: ``rate`` is not in (0, 1], or ``steps`` negative or no whole number; and as ``standard_mle``.
    """
    _check_sample(x, y)
    inputs.function("attack", attack, "of a fit, points and classes")
    inputs.whole("steps", steps, least=0)
    inputs.real("rate", rate)
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate}")
    fits = [standard_mle(x, y)]
    for _ in range(steps):
        now, then = fits[-1], standard_mle(attack(fits[-1], x, y), y)
        fits.append(
            Gaussians(
                torch.lerp(now.mean, then.mean, rate),
                torch.lerp(now.covariance, then.covariance, rate),
            )
        )
    return fits


def vulnerability(covariance: Float64[Tensor, "d d"], *, price: float) -> float:
    """tr[(I + (C Σ - I)⁻¹)²] - d with C = ``price``: the rise of E[zᵀ Σ⁻¹ z] under attack, twice the rise of E[ℓ].

    Source: Theorem 1 of Ilyas et al. 2019.

    Raises:
        ValueError: C s_min ≤ 1.
    """
    s = _spectrum(covariance)[0]
    _check_price(s, price)
    return float((1 + 1 / (price * s - 1)).square().sum() - len(s))


def alignment(mean: Float64[Tensor, " d"], covariance: Float64[Tensor, "d d"]) -> float:
    """cos(μ, Σ⁻¹ μ), between the direction from class to class and the gradient of the classifier; in (0, 1].

    Raises:
        TypeError, ValueError: as ``Gaussians``; also a ``mean`` of 0, which has no direction.
    """
    weights = Gaussians(mean, covariance).weights()
    if not bool(mean.any()):
        raise ValueError("mean is 0 and has no direction")
    return float(torch.cosine_similarity(mean, weights, dim=0))


def worst_mean(covariance: Float64[Tensor, "d d"]) -> Float64[Tensor, " d"]:
    """The μ of length 1 with the smallest alignment: √s_max u_max + √s_min u_min, normalised."""
    s, basis = _spectrum(covariance)
    return torch.nn.functional.normalize(s[-1].sqrt() * basis[:, -1] + s[0].sqrt() * basis[:, 0], dim=0)


def worst_alignment(covariance: Float64[Tensor, "d d"]) -> float:
    """min over μ of cos(μ, Σ⁻¹ μ) = 2 √κ / (1 + κ) with κ = s_max / s_min: Kantorovich's inequality."""
    s = _spectrum(covariance)[0]
    kappa = float(s[-1] / s[0])
    return 2 * math.sqrt(kappa) / (1 + kappa)


def _spectrum(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, smallest first, and eigenvectors (columns) of a covariance, which is checked."""
    inputs.instance("covariance", covariance, Tensor, "a tensor")
    if covariance.dtype != torch.float64:
        raise TypeError(f"covariance must be float64, got {covariance.dtype}")
    # An entry near 0 may be a difference of large entries, so its rounding error is on their scale. A NaN is refused.
    size = covariance.abs()
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1] > 0
    if not square or not bool((covariance - covariance.T).abs().le(1e-10 * size + 1e-12 * size.max()).all()):
        raise ValueError(f"covariance must be a symmetric matrix, got {covariance}")
    s, basis = torch.linalg.eigh(covariance)
    # By rounding, the smallest eigenvalue of a singular matrix comes out slightly above or below 0.
    if not s[0] > len(s) * torch.finfo(s.dtype).eps * s[-1]:
        raise ValueError(f"covariance must be positive definite, its smallest eigenvalue is {float(s[0]):g}")
    return s, basis


def _compose(basis: Tensor, s: Tensor) -> Tensor:
    """U diag(s) Uᵀ, symmetric to the last bit."""
    half = basis * s.sqrt()
    return half @ half.T


def _inflated(s: np.ndarray, price: float) -> np.ndarray:
    """Eigenvalues of Σ_r: the formula of Theorem 2, written as the square that it is, which loses no digits."""
    eigenvalues: np.ndarray = np.square(0.5 * (np.sqrt(s) + np.sqrt(s + 4 / price)))
    return eigenvalues


def _check_fit(fit: Gaussians, eps: float = 0.0) -> None:
    inputs.instance("fit", fit, Gaussians, "two Gaussians")
    inputs.number("eps", eps, least=0)


def _check_sample(x: Tensor, y: Tensor, **dimension: int) -> None:
    """Points (n, d) and their classes, −1 or +1: nothing is broadcast."""
    sizes = inputs.tensor("x", x, "n d", inputs.FLOAT64, like="the mean", **dimension)
    inputs.tensor("y", y, "n", inputs.FLOAT64, like="x", n=sizes["n"])
    if not len(x):
        raise ValueError("x must hold one point or more, got none")
    inputs.look(("x", x, inputs.FINITE), ("y", y, (-1.0, 1.0)))
    if not bool((y.abs() == 1).all()):
        raise ValueError("y must be −1 or +1 for each point")


def _check_price(s: Tensor, price: float) -> None:
    inputs.real("price", price)
    if not 1 < price * float(s[0]) < math.inf:
        raise ValueError(f"price must exceed 1 / s_min = {1 / float(s[0]):g} and be finite, got {price:g}")


def _slope(s: Tensor, nu: Tensor) -> Tensor:
    """λ s_i - 1 with λ = (1 + ν) / s_min, written so that it is exactly ν at s_min, however small ν is."""
    ratio = s / s.min()
    return ratio * nu[:, None] + (ratio - 1)


def _dual(squares: Tensor, s: Tensor, eps: float) -> Tensor:
    """For each row q of ``squares`` the ν ≥ 0 at which Σ_i q_i / (λ s_i - 1)² = eps²; 0 where no such ν exists.

    This is Newton's method on 1 / ‖δ‖, which is concave and increasing in ν: started left of the root, it climbs to the
    root and never passes it. At the start the components along s_min alone have length eps.
    """
    inputs.number("eps", eps, least=0)
    if eps == 0:
        return squares.new_full(squares.shape[:1], math.inf)
    ratio = s / s.min()
    nu = (squares * (ratio == 1)).sum(1).sqrt() / eps
    for _ in range(100):
        slope = _slope(s, nu)
        weighted = torch.where(squares > 0, squares / slope.square(), 0.0)
        length = weighted.sum(1).sqrt()
        steepness = torch.where(squares > 0, weighted * ratio / slope, 0.0).sum(1) / length**3
        step = (1 / eps - 1 / length) / steepness
        # In the hard case δ is shorter than eps even at ν = 0, and a Newton step would make ν negative.
        moved = torch.where(length > eps, nu + step, nu)
        if bool((moved - nu <= 1e-13 * moved).all()):
            return moved
        nu = moved
    raise RuntimeError(f"no price found for eps={eps} within 100 steps")


def _worst_shift(z: Tensor, s: Tensor, eps: float, *, on_average: bool = False) -> Tensor:
    """δ for every row of z, in the eigenbasis of the covariance with eigenvalues s; eps for each or on average."""
    if eps == 0:
        return torch.zeros_like(z)
    squares = z.square()
    slope = _slope(s, _dual(squares.mean(0, keepdim=True) if on_average else squares, s, eps))
    shift = torch.where(z != 0, z / slope, 0.0)
    spent = shift.square().sum(1)
    # In the hard case the rest of the budget goes along the smallest eigenvalue; both signs raise the loss equally.
    left = (eps**2 - (spent.mean() if on_average else spent)).clamp_min(0).sqrt()
    shift[:, s.argmin()] += torch.where(left > 1e-6 * eps, left, 0.0)
    return shift
