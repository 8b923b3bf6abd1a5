"""Minimum-norm attack: the nearest adversarial image that is found, and its distance, in place of a fixed radius."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, check_dataset
from advfeat.evaluation_mode import check_eval
from advfeat.models import ready
from advfeat.progress import progress
from advfeat.threats import Threat, check_threat

FIRST_RADIUS = 3.0
"""The radius of the first step, in distances of the boundary as the gradient at the image predicts it."""

STEP = (2.0, 0.01)
"""Length of the first and of the last step, in radii."""

FACTOR = (0.3, 0.001)
"""By which share the radius shrinks after success and grows after failure, at the first and at the last step."""


@dataclass(frozen=True)
class Nearest:
    """What a minimum-norm attack has found.

    Attributes:
        images: the nearest adversarial image of each image; where none was found, the image itself.
        distances: from the image, in the norm of the attack; 0 where the image itself is adversarial, infinite where
            none was found.
        passes: how many images the network was shown for each image, all but the last one or two with a gradient.
    """

    images: Float[Tensor, "n c h w"]
    distances: Float[Tensor, " n"]
    passes: Int[Tensor, " n"]


def minimum_norm(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    threat: Threat,
    *,
    steps: int,
    targeted: bool = False,
    tolerance: float = 0.005,
) -> Nearest:
    """The nearest images that ``model`` does not classify as ``labels``, in the norm of ``threat`` and inside [0, 1].

    Each image has a ball of its own. After a step that ends at an adversarial image the ball shrinks, after any other
    it grows, by a share that falls from 30 % to 0.1 %; so it closes in on the boundary while the steps look for the
    direction in which the boundary is nearest. The steps climb log Σ_{k≠y} exp z_k − z_y in the first half, which keeps
    all wrong classes in play, and the margin max_{k≠y} z_k − z_y in the second half. Neither saturates, as the
    cross-entropy does. From the second half on an image is done when the boundary, taken for a plane, is nearer than
    the best image by no more than ``tolerance``; images without a gradient are done at once.

    The distance is an upper bound on that of the nearest adversarial image: what withstands at a radius under this
    attack may be fooled by another one. One run gives the accuracy at every radius, the share of larger distances.
    Nothing is drawn. An image's result does not depend on the images beside it, as far as the model treats each on its
    own, see ``attacks.pgd``.

    Args:
        model: maps images to logits (n, classes), in eval mode and in float32, because its answers decide which images
            are adversarial; ``models.freeze(model, dtype=torch.float32)`` gives the fastest one.
        images: float32 in [0, 1].
        labels: int64, each one of the classes; with ``targeted`` the classes to reach.
        threat: names the norm, and the largest distance that counts as found; ``L2(math.inf)`` and ``Linf(1.0)`` leave
            out nothing. The search itself has the whole box, whatever the threat.
        steps: at most so many for each image; 50 come within one per cent of 100 in the book's networks.
        tolerance: relative error of a distance at which an image is done early, in [0, 1); 0 takes all steps.

    Raises:
        TypeError: an argument of another type or dtype, or a model that does not answer with logits.
        ValueError: the model is in training mode or its logits are not finite, images are not in [0, 1], a label is no
            class, shapes disagree, ``steps`` is negative, ``tolerance`` not in [0, 1), the radius is 0, or
            ``torch.inference_mode`` is on.
        FloatingPointError: a gradient was not finite.

    >>> from advfeat import L2, build_model
    >>> images, labels = torch.full((2, 3, 32, 32), 0.5), torch.tensor([3, 7])
    >>> found = minimum_norm(build_model("cnn4", seed=0).eval(), images, labels, L2(math.inf), steps=10)
    >>> found.images.shape, bool(torch.equal(found.distances, L2(1.0).distance(found.images, images)))
    (torch.Size([2, 3, 32, 32]), True)

    Source: Rony et al. 2019 (DDN) for the sphere around each image and the decoupled direction; Pintor et al. 2021
    (FMN) for the predicted first distance and the shrinking shares. The relative steps, the change of objective and the
    early end are ours.
    """
    _check(model, images, labels, threat, steps, targeted, tolerance)
    search = _Search(model, images, labels, threat, targeted)
    for step in range(steps):
        if not len(search.left):
            break
        search.step(step / steps, first=step == 0, early=tolerance if 2 * step >= steps else 0.0)
    return search.finished()


def minimum_distances(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    tolerance: float = 0.005,
    batch_size: int = 500,
) -> Float[Tensor, " n"]:
    """The distance of each image of a dataset from the nearest adversarial image that ``minimum_norm`` finds.

    The share of distances above ε is an accuracy under attack at radius ε, for all ε at once;
    ``Estimate.of_median`` gives the median with its interval.

    Args:
        model: a ``Classifier``, judged in float32, or any other network in eval mode, which is asked as it is.
        threat: names the norm, and the largest distance that counts as found.

    Raises:
        TypeError, ValueError: from ``minimum_norm``, the dataset is empty, or ``batch_size`` is not positive.
    """
    check_dataset(dataset, least=1)
    inputs.whole("batch_size", batch_size, least=1)
    judge = ready(model, dtype=torch.float32)
    _check(judge, dataset.images, dataset.labels, threat, steps, False, tolerance)
    found = []
    with progress(total=len(dataset), unit="image", description=f"nearest {threat.norm}") as bar:
        for rows in torch.arange(len(dataset)).split(batch_size):
            part = dataset.subset(rows)
            nearest = minimum_norm(judge, part.images, part.labels, threat, steps=steps, tolerance=tolerance)
            found.append(nearest.distances)
            bar.update(len(rows))
    return torch.cat(found)


def _check(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, steps: int, targeted: bool, tolerance: float
) -> None:
    inputs.network(model)
    check_eval(model)
    inputs.images(images, model=model)
    inputs.labels(labels, count=len(images))
    check_threat(threat)
    if threat.eps == 0:
        raise ValueError(f"threat: the radius must be positive, got {threat}")
    inputs.whole("steps", steps, least=0)
    inputs.flag("targeted", targeted)
    inputs.number("tolerance", tolerance, least=0)
    if tolerance >= 1:
        raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
    inputs.gradients_possible(model)
    inputs.look(("images", images, inputs.BOX), ("labels", labels, (0, math.inf)))


class _Search:
    """The images of one call: where each one is, the radius of its ball, and the best that it has met."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, targeted: bool) -> None:
        self.model, self.labels, self.threat, self.sign = model, labels, threat, -1 if targeted else 1
        # Channels last, as networks read and differentiate: then nothing is rearranged at every step.
        self.origin = images.contiguous(memory_format=torch.channels_last)
        self.adv, self.best = self.origin.clone(), self.origin.clone()
        self.distances = torch.full_like(images[:, 0, 0, 0], math.inf)
        corners = (images < 0.5).to(images)
        # The search may leave the threat: often it comes to the nearest image from a farther one.
        self.limit = threat.distance(corners, images) if len(images) else self.distances.clone()
        # The rounding of a norm and of a pixel: a step that ends on the sphere may come out a little beyond it.
        whole = threat.whole_box(images).eps if len(images) else 0.0
        self.reach = threat.eps * (1 + 1e-5) + 2.0**-24 * whole
        self.radius, self.passes = self.limit.clone(), torch.zeros_like(labels)
        self.left = torch.arange(len(images), device=images.device)
        self._ask(self.left[:1])

    def _ask(self, rows: Tensor) -> Tensor:
        """The logits of some images as they are, for which a model must not answer anything strange."""
        if not len(rows):
            return self.origin.new_empty(0, 1)
        with torch.no_grad():
            logits: Tensor = self.model(self.adv[rows])
        inputs.logits(logits, len(rows))
        highest = int(self.labels.max())
        if highest >= logits.shape[1]:
            raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got up to {highest}")
        if logits.shape[1] < 2:
            raise ValueError(f"model must know two classes or more, got {logits.shape[1]}")
        return logits

    def _margin(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How far an image is on the wanted side, positive where it is adversarial: hard, and smoothed."""
        own = self.labels[rows][:, None]
        rest = logits.scatter(1, own, -math.inf)
        label = logits.gather(1, own).flatten()
        return self.sign * (rest.amax(1) - label), self.sign * (rest.logsumexp(1) - label)

    def step(self, done: float, *, first: bool, early: float) -> None:
        """One look and one step of all images that are left; ``done`` is the share of the steps behind it."""
        rows, threat = self.left, self.threat
        adv, origin = self.adv[rows].requires_grad_(), self.origin[rows]
        with torch.enable_grad():
            logits = self.model(adv)
            inputs.logits(logits, len(rows))
            hard, smooth = self._margin(logits, rows)
            # The first gradient predicts how far the boundary is, which is where the hard margin is 0.
            total = (smooth if 0 < done < 0.5 else hard).sum()
        if not total.requires_grad:
            raise ValueError("model has no gradient: nothing leads from the images to what it answers")
        (gradient,) = torch.autograd.grad(total, adv)
        margin, adv = hard.detach(), adv.detach()
        self._refuse_nan(margin, gradient, first=first)
        self.passes[rows] += 1
        self._keep_best(rows, adv, margin > 0)
        best, slope = self.distances[rows], threat.dual_norm(gradient.flatten(1))
        share = (1 + math.cos(math.pi * done)) / 2
        factor, step = (last + (start - last) * share for start, last in (FACTOR, STEP))
        if first:
            radius = FIRST_RADIUS * margin.abs() / slope.clamp(min=torch.finfo(slope.dtype).tiny)
        else:
            radius = self.radius[rows]
            smaller, larger = torch.minimum(radius, best) * (1 - factor), torch.minimum(radius * (1 + factor), best)
            radius = torch.where(margin > 0, smaller, larger)
        radius = torch.minimum(radius, self.limit[rows])
        self.radius[rows] = radius
        self.adv[rows] = threat.step_each(adv, origin, gradient, step * radius, radius)
        over = (best == 0) | (slope == 0) if first else torch.zeros_like(best, dtype=torch.bool)
        if early and not first:
            plane = ((gradient * (adv - origin)).flatten(1).sum(1) - margin) / slope
            over |= (best < math.inf) & (best <= plane * (1 + early))
        self.left = rows[~over]

    def _refuse_nan(self, margin: Tensor, gradient: Tensor, *, first: bool) -> None:
        if broken := int((~margin.isfinite()).sum()):
            kind = ValueError if first else FloatingPointError
            raise kind(f"model: its logits are not finite for {broken} of {len(margin)} images")
        if broken := int((~gradient.isfinite()).flatten(1).any(1).sum()):
            raise FloatingPointError(f"model: the gradient was not finite for {broken} of {len(margin)} images")

    def _keep_best(self, rows: Tensor, adv: Tensor, adversarial: Tensor) -> None:
        away = self.threat.distance(adv, self.origin[rows])
        better = adversarial & (away < self.distances[rows])
        self.distances[rows[better]], self.best[rows[better]] = away[better], adv[better]

    def finished(self) -> Nearest:
        """The best images, after a last look at where each search has ended, and once more at all that were found."""
        if len(self.left):
            hard, _ = self._margin(self._ask(self.left), self.left)
            self.passes[self.left] += 1
            self._keep_best(self.left, self.adv[self.left], hard > 0)
        found = (self.distances < math.inf).nonzero().flatten()
        self.adv = self.best
        # In a batch of another size a margin near 0 can come out with the other sign.
        for push in (0.0, 1e-4, 1e-3, 1e-2, math.inf):
            if not len(found):
                break
            if push == math.inf:
                self.distances[found] = math.inf
                break
            moved = self.best[found] + push * (self.best[found] - self.origin[found])
            self.adv[found] = moved.clamp_(0, 1)
            hard, _ = self._margin(self._ask(found), found)
            self.passes[found] += 1
            self.distances[found] = self.threat.distance(self.best[found], self.origin[found])
            found = found[hard <= 0]
        missed = self.distances > self.reach
        self.best[missed], self.distances[missed] = self.origin[missed], math.inf
        return Nearest(self.best.contiguous(), self.distances, self.passes)
