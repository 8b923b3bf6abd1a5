"""Images made from a representation, and how the units of two networks correspond.

Inversion itself is ``attacks.match_representation``. This module has paths between images, images that excite one unit,
and the numbers by which another network judges both.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from advfeat import inputs
from advfeat.attacks import match_representation
from advfeat.evaluation_mode import check_eval
from advfeat.gradient_ascent import maximize
from advfeat.models import Classifier, freeze
from advfeat.threats import FREE, check_step


def interpolate(
    model: Classifier,
    left: Float[Tensor, "n c h w"],
    right: Float[Tensor, "n c h w"],
    *,
    points: int,
    steps: int,
    step_size: float,
) -> Float[Tensor, "points n c h w"]:
    """Images whose representations lie on the line between those of ``left`` and ``right``.

    For f = 0, 1/(points − 1), ..., 1 the target is (1 − f) g(left) + f g(right), and the search starts at the mixture
    of pixels (1 − f) left + f right. The ends are the two images themselves.

    Args:
        model: in eval mode; its ``representation`` is g.
        left, right: float32 in [0, 1], pair by pair.
        steps: steps of ``match_representation``, per image.
        step_size: ℓ2 length of a step, in pixel units.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: fewer than two ``points``, ``left`` and ``right`` differ in shape, the model is in training mode, or
            from ``match_representation``.

    Source: feature interpolation in Engstrom et al. 2019 (arXiv 1906.00945) and MadryLab/robust_representations.
    """
    inputs.whole("points", points, least=2)
    inputs.network(model, inside=True)
    check_eval(model)
    sizes = inputs.images(left, "left", model=model)
    inputs.tensor("right", right, "n c h w", like="left", **sizes)
    inputs.whole("steps", steps, least=0)
    check_step(step_size, FREE, left)
    inputs.look(("left", left, inputs.BOX), ("right", right, inputs.BOX))
    with torch.no_grad():
        ends = model.representation(left), model.representation(right)
    fractions = torch.linspace(0, 1, points, device=left.device)
    starts = torch.stack([torch.lerp(left, right, f) for f in fractions])
    targets = torch.stack([torch.lerp(*ends, f) for f in fractions])
    inner = slice(1, points - 1)
    if points > 2:
        starts[inner] = match_representation(
            model, starts[inner].flatten(0, 1), targets[inner].flatten(0, 1), steps=steps, step_size=step_size
        ).view_as(starts[inner])
    return starts


def excite(
    model: Classifier,
    start: Float[Tensor, "n c h w"],
    units: Int[Tensor, " n"],
    *,
    steps: int,
    step_size: float,
    ceiling: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that excite one unit of the representation: ``steps`` steps up along the gradient of g(z)_unit.

    Steps have length ``step_size`` in ℓ2, pixels stay in [0, 1], and no ball keeps the images near their start. An
    image whose unit has reached its ``ceiling`` no longer changes. With a ceiling the search *adds* a feature to an
    image; without, it shows the feature in the extreme. Returns the last iterate.

    Args:
        model: in eval mode, ``freeze(model, leak=0.1)``: a silent unit has a gradient only with the leak.
        start: float32 in [0, 1].
        units: the unit that each image is to excite.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a unit that the representation does not have, not one unit or ceiling per image, a ceiling that is
            NaN, and from ``gradient_ascent.maximize``.
        FloatingPointError: a gradient was not finite.

    Source: direct feature visualisation and feature manipulation in Engstrom et al. 2019 (arXiv 1906.00945).
    """
    inputs.network(model, inside=True)
    inputs.images(start, "start", model=model)
    inputs.labels(units, "units", count=len(start), beside="start images")
    inputs.look(("start", start, inputs.BOX), ("units", units, (0, math.inf)))
    if len(units):
        check_eval(model)
        with torch.no_grad():
            width, last = model.representation(start[:1]).shape[1], int(units.max())
        if last >= width:
            raise ValueError(f"units must lie in [0, {width}), got {last}")
    if ceiling is not None:
        inputs.tensor("ceiling", ceiling, "n", inputs.FLOATS, n=len(start))
        if bool(ceiling.isnan().any()):
            raise ValueError("ceiling must be a number for each image, got NaN")
    highest = torch.full((len(start), 1), torch.inf, device=start.device) if ceiling is None else ceiling[:, None]
    # Which unit, and how far: a float64 holds both exactly.
    target = torch.cat([units[:, None].double(), highest.double()], dim=1)
    with inputs.trusted():
        return maximize(model, _excited, start, target, FREE, on="representation", steps=steps, step_size=step_size)


def _excited(representation: Tensor, target: Tensor) -> Tensor:
    value = representation.gather(1, target[:, :1].long())
    # At the ceiling, and not only above it, the gradient is 0, and a step stays put.
    return torch.where(value >= target[:, 1:].to(value.dtype), value.detach(), value).sum()


def relative_distance(found: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """‖found − target‖₂ / ‖target‖₂ of each row: 0 for a perfect match, about 1 for unrelated directions.

    For a target of length 0 it is the distance itself, as in ``attacks.match_representation``.

    Raises:
        TypeError, ValueError: the arguments differ in shape, are not floating-point or not finite.
    """
    sizes = inputs.tensor("target", target, "n d", inputs.FLOATS)
    inputs.tensor("found", found, "n d", inputs.FLOATS, like="target", **sizes)
    inputs.look(("found", found, inputs.FINITE), ("target", target, inputs.FINITE))
    return _relative(found, target)


def _relative(found: Tensor, target: Tensor) -> Tensor:
    size = target.norm(dim=1)
    relative: Tensor = (found - target).norm(dim=1) / torch.where(size > 0, size, 1)
    return relative


def match_distance(
    model: Classifier, found: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], *, batch_size: int = 500
) -> Float[Tensor, " n"]:
    """Relative distance of each image's representation from its target's: ‖R(x̂) − R(x)‖₂ / ‖R(x)‖₂, in float32.

    This is the objective of ``attacks.match_representation``, computed in batches for large datasets.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: found and target differ in shape or are not in [0, 1], or a representation is not finite.
    """
    inputs.instance("model", model, Classifier, "a models.Classifier, whose representation is compared")
    inputs.whole("batch_size", batch_size, least=1)
    inputs.images(found, "found", model=model)
    inputs.images(target, "target", model=model)
    if found.shape != target.shape:
        shapes = f"{tuple(found.shape)} and {tuple(target.shape)}"
        raise ValueError(f"found and target must match: {len(found)} images but {len(target)} targets, {shapes}")
    inputs.look(("found", found, inputs.BOX), ("target", target, inputs.BOX))
    frozen = freeze(model, dtype=torch.float32)
    with torch.no_grad():
        parts = zip(found.split(batch_size), target.split(batch_size), strict=True)
        distance = torch.cat([_relative(frozen.representation(a), frozen.representation(b)) for a, b in parts])
    inputs.look(("model: the distance of its representations", distance, inputs.FINITE))
    return distance


def detour(path: Float[Tensor, "points n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The deviation of each path from the straight path with equal steps between its ends, and its longest step.

    Both are in units of the distance between the ends. The first is the mean distance of the inner points from their
    positions on the straight path, 0 at best. The second is 1 / (points − 1) at best, and 1 if the path stands still
    and then jumps.

    Raises:
        TypeError: ``path`` is not floating-point.
        ValueError: fewer than three points, a path whose ends coincide, or a value that is not finite.
    """
    inputs.tensor("path", path, "points n d", inputs.FLOATS)
    inputs.look(("path", path, inputs.FINITE))
    if len(path) < 3:
        raise ValueError(f"path: a path needs three points or more, got {len(path)}")
    first, last = path[0], path[-1]
    span = (last - first).norm(dim=1)
    if not bool((span > 0).all()):
        raise ValueError(f"path: the ends of {int((span == 0).sum())} of {len(span)} paths coincide")
    fractions = torch.linspace(0, 1, len(path)).to(path)[:, None, None]
    straying = (path - torch.lerp(first, last, fractions)).norm(dim=2)[1:-1].mean(0)
    stride = path.diff(dim=0).norm(dim=2).amax(0)
    return straying / span, stride / span


def matched_units(
    first: Float[Tensor, "n k"], second: Float[Tensor, "n m"]
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """For each unit of one network, the most correlated unit of another network over n images, and their correlation.

    The correlation of a unit that has one value on all images is 0.

    Raises:
        TypeError: values that are not floating-point.
        ValueError: different numbers of images, fewer than two images, no unit, or a value that is not finite.
    """
    sizes = inputs.tensor("first", first, "n k", inputs.FLOATS)
    inputs.tensor("second", second, "n m", inputs.FLOATS, like="first", n=sizes["n"])
    inputs.look(("first", first, inputs.FINITE), ("second", second, inputs.FINITE))
    for name, values in (("first", first), ("second", second)):
        if len(values) < 2 or not values.shape[1]:
            raise ValueError(f"{name} must hold two images or more and a unit, got shape {tuple(values.shape)}")
    scores = []
    for values in (first, second):
        centred = values.double() - values.double().mean(0)
        spread = centred.norm(dim=0)
        scores.append(torch.where(spread > 1e-12, centred / spread, 0))
    correlation, index = (scores[0].T @ scores[1]).max(dim=1)
    return index, correlation.float()
