"""Images from the inside of a network: what its representation keeps, and how two networks' units correspond.

Inversion itself is ``attacks.match_representation``. Here are paths between images, images that excite one unit, and
the numbers by which another network judges them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from advfeat.attacks import FREE, ascend, match_representation
from advfeat.models import Classifier, check_eval, freeze


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
        steps: of ``match_representation``, per image.
        step_size: their ℓ2 length, in pixel units.

    Raises:
        ValueError: fewer than two ``points``, the model is in training mode, or from ``match_representation``.

    Source: feature interpolation in Engstrom et al. 2019 (arXiv 1906.00945) and MadryLab/robust_representations.
    """
    if points < 2:
        raise ValueError(f"points must be 2 or more, got {points}")
    check_eval(model)
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

    Steps have length ``step_size`` in ℓ2, pixels stay in [0, 1], no ball holds the images near their start. An image
    whose unit has reached its ``ceiling`` stays as it is: with one, this *adds* a feature, without, it shows the
    feature in the extreme. Returns the last iterate.

    Args:
        model: in eval mode, ``freeze(model, leak=0.1)``: a silent unit needs the leak to have a gradient.
        start: float32 in [0, 1].
        units: which unit each image is to excite.

    Raises:
        ValueError: the model is in training mode, ``steps`` is negative, or ``step_size`` is not positive.
        FloatingPointError: a gradient was not finite.

    Source: direct feature visualisation and feature manipulation in Engstrom et al. 2019 (arXiv 1906.00945).
    """
    highest = torch.full((len(start), 1), torch.inf, device=start.device) if ceiling is None else ceiling[:, None]
    # Which unit, and how far: a float64 holds both exactly.
    aim = torch.cat([units[:, None].double(), highest.double()], dim=1)

    def gain(representation: Tensor, aim: Tensor) -> Tensor:
        value = representation.gather(1, aim[:, :1].long())
        # At the ceiling, and not only above it, the gradient is 0, and a step stays put.
        return torch.where(value >= aim[:, 1:].to(value.dtype), value.detach(), value).sum()

    return ascend(model, gain, start, aim, FREE, name="excite", inside=True, steps=steps, step_size=step_size)


def relative_distance(found: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """‖found − target‖₂ / ‖target‖₂ of each row: 0 for a perfect match, about 1 for unrelated directions.

    To a target of length 0 it is the distance itself, as for ``attacks.match_representation``.
    """
    size = target.norm(dim=1)
    return (found - target).norm(dim=1) / torch.where(size > 0, size, 1)


def match_distance(
    model: Classifier, found: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], *, batch_size: int = 500
) -> Float[Tensor, " n"]:
    """How far the representation of each image is from that of its target: ‖R(x̂) − R(x)‖₂ / ‖R(x)‖₂, in float32.

    It is what ``attacks.match_representation`` minimises, for datasets that are too large to be represented at once.

    Raises:
        ValueError: another number of images than of targets.
    """
    if len(found) != len(target):
        raise ValueError(f"{len(found)} images but {len(target)} targets")
    frozen = freeze(model, dtype=torch.float32)
    with torch.no_grad():
        parts = zip(found.split(batch_size), target.split(batch_size), strict=True)
        return torch.cat([relative_distance(frozen.representation(a), frozen.representation(b)) for a, b in parts])


def detour(path: Float[Tensor, "points n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How far each path strays from the straight, evenly paced way between its ends, and its longest stride.

    Both in units of the distance between the ends. The first is the mean distance of the inner points from where they
    should be, 0 at best. The second is 1 / (points − 1) at best, and 1 if the path stands still and then jumps.

    Raises:
        ValueError: fewer than three points, or a path whose ends coincide.
    """
    if len(path) < 3:
        raise ValueError(f"a path needs three points or more, got {len(path)}")
    first, last = path[0], path[-1]
    span = (last - first).norm(dim=1)
    if not bool((span > 0).all()):
        raise ValueError(f"the ends of {int((span == 0).sum())} of {len(span)} paths coincide")
    fractions = torch.linspace(0, 1, len(path)).to(path)[:, None, None]
    straying = (path - torch.lerp(first, last, fractions)).norm(dim=2)[1:-1].mean(0)
    stride = path.diff(dim=0).norm(dim=2).amax(0)
    return straying / span, stride / span


def matched_units(
    first: Float[Tensor, "n k"], second: Float[Tensor, "n m"]
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """For each unit of one network the unit of another that correlates with it most over n images, and how much.

    Units that have one value on all images correlate with nothing: 0.
    """
    scores = []
    for values in (first, second):
        centred = values.double() - values.double().mean(0)
        spread = centred.norm(dim=0)
        scores.append(torch.where(spread > 1e-12, centred / spread, 0))
    correlation, index = (scores[0].T @ scores[1]).max(dim=1)
    return index, correlation.float()
