"""Features in the sense of the paper: functions of an image, how useful they are, and stay under attack.

A feature is a function f: image → number. It is judged on a binary task, y = +1 or −1 with equal probability. Where a
dataset has more classes, the task is one class against the rest: the images of each side are averaged first, and both
sides count one half, so that a useless feature has usefulness 0 and a perfect one 1 however rare the class is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Estimate
from advfeat.progress import progress
from advfeat.responses import Responses, by_class, check_labelled, check_responses, mean_worst
from advfeat.threats import Threat, check_step, check_threat


def linear_responses(
    weights: Float[Tensor, "k c h w"], images: Float[Tensor, "n c h w"], threat: Threat, *, box: bool = True
) -> Responses:
    """The features f_j(x) = ⟨w_j, x⟩ and their exact extremes within the threat, float64.

    Without the box the adversary may leave [0, 1]: f moves by ε‖w‖, in the dual norm (ℓ2 for ℓ2, ℓ1 for ℓ∞), whatever
    the image. With the box pixel i can move by its room rᵢ only, the way to 0 or to 1 that the sign of wᵢ asks for. In
    ℓ∞ it moves by min(ε, rᵢ), in ℓ2 by min(τ|wᵢ|, rᵢ), where τ is as large as ε allows: see ``Threat.reach``.

    Args:
        images: float32 of the size of the weights; in [0, 1], or without the box any numbers.
        box: whether attacked images must stay in [0, 1].

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: images outside [0, 1] or none, weights of another size or not finite, or no box and no bound.
    """
    check_threat(threat)
    inputs.flag("box", box)
    sizes = inputs.images(images, least=1)
    inputs.tensor("weights", weights, "k c h w", inputs.FLOATS, like="images", **{key: sizes[key] for key in "chw"})
    inputs.look(("images", images, inputs.BOX if box else inputs.FINITE), ("weights", weights, inputs.FINITE))
    if not box and threat.eps == math.inf:
        raise ValueError(f"threat must have a finite radius where box is False, got {threat}")
    rows = weights.flatten(1).double()
    clean = torch.cat([piece.flatten(1).double() @ rows.T for piece in images.split(1000)])
    if not box:
        reach = threat.eps * threat.dual_norm(rows)
        return Responses(clean, clean - reach, clean + reach)
    fall, rise = torch.empty_like(clean), torch.empty_like(clean)
    flat = images.flatten(1).double()
    for j, row in enumerate(rows):
        fall[:, j] = threat.reach(row.abs(), torch.where(row > 0, flat, 1 - flat))
        rise[:, j] = threat.reach(row.abs(), torch.where(row > 0, 1 - flat, flat))
    return Responses(clean, clean - fall, clean + rise)


def searched_responses(
    function: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    batch_size: int = 500,
) -> Responses:
    """Any features, with their extremes within the threat as PGD finds them: ``steps`` steps down and up per feature.

    The best value on the way counts, the image itself included. The true extremes lie at or beyond those found, so a
    robust usefulness computed from them is an upper bound, as far as ``function`` does not round: in bfloat16 it is one
    to two or three digits.

    Args:
        function: images → (n, k), differentiable, each row from its own image only. For the units of a network take
            ``freeze(model, leak=0.1).representation``: without a leak a silent unit has no gradient, stays silent and
            looks robust.
        images: in [0, 1].
        step_size: in pixel units.

    Raises:
        TypeError: an argument of another type or dtype, or a function whose answer is not (n, k).
        ValueError: images outside [0, 1] or none, ``steps`` or ``step_size`` not positive, or a step longer than the
            diameter of the threat.
        FloatingPointError: a feature or its gradient was not finite.

    Source: the inner infimum of equation (2) of Ilyas et al. 2019.
    """
    inputs.function("function", function, "of images")
    check_threat(threat)
    inputs.whole("steps", steps)
    inputs.number("step_size", step_size)
    inputs.whole("batch_size", batch_size, least=1)
    inputs.images(images, least=1)
    if steps < 1 or not step_size > 0:
        raise ValueError(f"steps and step_size must be positive, got steps={steps}, step_size={step_size}")
    check_step(step_size, threat, images)
    inputs.look(("images", images, inputs.BOX))
    with torch.no_grad():
        answers = [(function(piece), len(piece)) for piece in images.split(batch_size)]
    for answer, count in answers:
        inputs.logits(answer, count, name="function", what="features")
    clean = torch.cat([answer for answer, _ in answers])
    lowest, highest = clean.clone(), clean.clone()
    with progress(total=2 * clean.shape[1] * len(images), unit="img", description=f"extremes, {threat}") as bar:
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            for j in range(clean.shape[1]):
                for sign, best in ((-1.0, lowest), (1.0, highest)):
                    found = _largest_on_the_way(function, images[rows], j, sign, threat, steps, step_size)
                    best[rows, j] = sign * torch.maximum(sign * best[rows, j], found)
                    bar.update(len(found))
    return Responses(clean, lowest, highest)


def _largest_on_the_way(
    function: Callable[[Tensor], Tensor],
    images: Tensor,
    feature: int,
    sign: float,
    threat: Threat,
    steps: int,
    step_size: float,
) -> Tensor:
    """The largest sign · f over the iterates of PGD."""
    adv = images
    best = images.new_full((len(images),), -torch.inf)
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        with torch.enable_grad():
            value = sign * function(adv)[:, feature]
        if not value.requires_grad:
            raise ValueError("function must be differentiable: nothing leads from the images to its answer")
        (gradient,) = torch.autograd.grad(value.sum(), adv)
        best = torch.maximum(best, value.detach())
        adv = threat.step(adv.detach(), images, gradient, step_size)
    with torch.no_grad():
        best = torch.maximum(best, sign * function(adv)[:, feature])
    if not bool(best.isfinite().all()):
        raise FloatingPointError(f"function: feature {feature} or its gradient was not finite")
    return best


def usefulness(values: Float[Tensor, "n k"], positive: Bool[Tensor, " n"], *, level: float = 0.95) -> list[Estimate]:
    """ρ of each feature, E[y f(x)] with f shifted and scaled to E[f] = 0 and E[f²] = 1, in [−1, 1].

    With m₊ and m₋ the means of f over the two sides, and σ its standard deviation when both sides count one half,
    ρ = (m₊ − m₋) / 2σ.

    Args:
        values: f_j(x_i).
        positive: where y = +1.
        level: of the interval of each feature alone. For m of them to hold all at once take 1 − 0.05 / m (Bonferroni).

    Returns:
        One estimate per feature. The interval is Student's, with the standard error of the ratio by the delta method,
        on Fisher's scale, so that it stays in [−1, 1], see ``Estimate.on_fishers_scale``: σ is estimated from the same
        images, and leaving that out misses the right width. Where one image in a hundred
        decides, as for a texture that is nearly always right, it needs several hundred images on each side.

    Raises:
        TypeError: ``values`` are not floating, or ``positive`` is not boolean.
        ValueError: a side has fewer than two images, a feature has one value everywhere or one that is not finite,
            shapes disagree, or ``level`` is not in (0, 1).

    >>> values = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]])
    >>> useful, = usefulness(values, torch.tensor([True, True, False, False]))
    >>> print(f"{useful.value:.3f}")
    0.949

    Source: equation (1) of Ilyas et al. 2019.
    """
    inputs.tensor("values", values, "n k", inputs.FLOATS)
    return [found.on_fishers_scale() for found in mean_worst(values, values, values, positive, level)]


def robust_usefulness(responses: Responses, positive: Bool[Tensor, " n"], *, level: float = 0.95) -> list[Estimate]:
    """γ of each feature, E[inf over the threat of y f(x + δ)], on the scale on which E[f] = 0 and E[f²] = 1.

    The infimum is the lowest response where y = +1, and minus the highest where y = −1; it may be far below −1.
    Arguments, intervals and errors as in ``usefulness``.

    Source: equation (2) of Ilyas et al. 2019.
    """
    check_responses(responses)
    return mean_worst(responses.clean, responses.lowest, responses.highest, positive, level)


def class_usefulness(
    responses: Responses, labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "classes k"], Float[Tensor, "classes k"]]:
    """ρ and γ of every feature for every class against the rest, each feature turned so that ρ is not negative.

    A feature that has one value everywhere counts as useless: both are 0.

    Raises:
        TypeError: ``responses`` are none, or labels not int64.
        ValueError: a class from 0 to the last has no images, there is one class only, a response is not finite, or the
            numbers of images and labels differ.
    """
    check_labelled(responses, labels)
    useful, robust = by_class(responses, labels, torch.ones(1, len(labels)))
    return useful[0], robust[0]


def shares(
    responses: Responses, labels: Int[Tensor, " n"], *, threshold: float = 0.2, draws: int = 200, seed: int = 0
) -> dict[str, Estimate]:
    """Of all pairs of a class and a feature: which share is ``useful`` (ρ ≥ threshold), ``robust`` (γ > 0 as well) and
    ``non-robust`` (useful with γ < 0).

    The pairs share their images, so no formula for proportions fits. The interval is ± 1.96 standard deviations over
    ``draws`` bootstrap samples of the images of each class, as far as they lie in [0, 1]. It is of the count as so
    few images give it: chance carries useless pairs past the threshold, so that the shares come out too high, and the
    interval does not take that off.

    Raises:
        TypeError, ValueError: as in ``class_usefulness``; a negative ``threshold``, fewer than two ``draws``.

    Source: "useful" and "robust" after equations (1) and (2) of Ilyas et al. 2019, which leave the threshold open.
    """
    check_labelled(responses, labels)
    inputs.number("threshold", threshold, least=0)
    inputs.whole("draws", draws, least=2)
    inputs.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(draws + 1, len(labels))
    weights[0] = 1
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten().cpu()
        drawn = rows[torch.randint(len(rows), (draws, len(rows)), generator=generator)]
        weights[1:].scatter_add_(1, drawn, torch.ones(drawn.shape))
    useful, robust = by_class(responses, labels, weights)
    chosen = useful >= threshold
    found = {"useful": chosen, "robust": chosen & (robust > 0), "non-robust": chosen & (robust < 0)}
    estimates = {}
    for name, pairs in found.items():
        values = pairs.double().mean((1, 2))
        value, half = float(values[0]), 1.96 * float(values[1:].std())
        low, high = max(0.0, value - half), min(1.0, value + half)
        estimates[name] = Estimate(value, low, high, len(labels), rate=False, within=(0.0, 1.0))
    return estimates


def linear_truth(
    means: Float[Tensor, "classes k"],
    variances: Float[Tensor, "classes k"],
    reach: Float[Tensor, " k"],
    positive: int,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """ρ and γ of linear features whose mean and variance are known for each label, with labels equally frequent.

    Class ``positive`` against the rest: ρ = (m₊ − m₋) / 2σ and γ = ρ − reach / σ, where ``reach`` is how far the
    adversary moves each feature, ε‖w‖ in the dual norm.

    Raises:
        TypeError, ValueError: shapes disagree, there are fewer than two classes, ``positive`` is none of them, a number
            is not finite, or a variance or a reach is negative.
    """
    sizes = inputs.tensor("means", means, "classes k", inputs.FLOATS)
    inputs.tensor("variances", variances, "classes k", inputs.FLOATS, like="means", **sizes)
    inputs.tensor("reach", reach, "k", inputs.FLOATS, like="means", k=sizes["k"])
    if len(means) < 2:
        raise ValueError(f"means must be of two classes or more, got {len(means)}")
    inputs.whole("positive", positive, least=0, most=len(means) - 1)
    spread = (("variances", variances, (0.0, math.inf)), ("reach", reach, (0.0, math.inf)))
    inputs.look(("means", means, inputs.FINITE), *spread)
    rest = torch.arange(len(means)) != positive
    middle = (means[positive] + means[rest].mean(0)) / 2
    squares = variances + (means - middle).square()
    scale = ((squares[positive] + squares[rest].mean(0)) / 2).sqrt()
    useful = (means[positive] - means[rest].mean(0)) / 2 / scale
    return useful, useful - reach / scale
