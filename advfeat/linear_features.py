"""Linear classifiers and linear features, whose robustness is known exactly: the tools of the comments by Goh (2019).

A linear classifier answers with the largest of its scores s_j(x) = ⟨w_j, x⟩ + b_j. An adversary changes the difference
of two scores by at most ε‖w_i − w_j‖ in the dual norm, so whether an answer can be changed is a matter of arithmetic.
That images stay in [0, 1] is left out of account: an adversary without that limit is stronger, so what is certified
here holds with it, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from advfeat import inputs
from advfeat.threats import Threat, check_threat


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """The scores s_j(x) = ⟨w_j, x⟩ + b_j of vectors x, such as flattened images or the responses of k features.

    Raises:
        TypeError, ValueError: weights or biases are not floating, not finite, or do not belong together.
    """

    weights: Float[Tensor, "classes k"]
    bias: Float[Tensor, " classes"]

    def __post_init__(self) -> None:
        sizes = inputs.tensor("weights", self.weights, "classes k", inputs.FLOATS)
        inputs.tensor("bias", self.bias, "classes", inputs.FLOATS, like="weights", classes=sizes["classes"])
        inputs.look(("weights", self.weights, inputs.FINITE), ("bias", self.bias, inputs.FINITE))

    def scores(self, values: Float[Tensor, "n k"]) -> Float[Tensor, "n classes"]:
        """The scores of each row, float64.

        Raises:
            TypeError, ValueError: values are not floating, not finite, or of another width than the weights.
        """
        inputs.tensor("values", values, "n k", inputs.FLOATS, like="weights", k=self.weights.shape[1])
        inputs.look(("values", values, inputs.FINITE))
        return torch.cat([rows.double() @ self.weights.double().T for rows in values.split(5000)]) + self.bias.double()

    def predictions(self, values: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
        """The class of each row; errors as ``scores``."""
        return self.scores(values).argmax(1)

    def certified(self, values: Float[Tensor, "n k"], threat: Threat) -> Bool[Tensor, " n"]:
        """Whether the answer to each row is the same everywhere within ``threat``, the box [0, 1] left out of account.

        The answer i stays if s_i − s_j > ε‖w_i − w_j‖ in the dual norm for every other class j.

        Raises:
            TypeError, ValueError: as ``scores``; ``threat`` is none, or without a bound.
        """
        check_threat(threat)
        if threat.eps == math.inf:
            raise ValueError(f"threat must have a finite radius, got {threat}")
        scores = self.scores(values)
        answers = scores.argmax(1)
        margins = scores.gather(1, answers[:, None]) - scores
        others = F.one_hot(answers, len(self.bias)) == 0
        return ((margins > threat.eps * _distances(self.weights.double(), threat)[answers]) | ~others).all(1)


def fit_linear(
    values: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    *,
    classes: int,
    threat: Threat | None = None,
    penalty: float = 1e-4,
    iterations: int = 100,
) -> LinearClassifier:
    """Multinomial logistic regression, ordinary or against an adversary, by L-BFGS from zero.

    Minimised is the mean of log Σ_j exp(s_j(x) − s_y(x) + ε‖w_j − w_y‖) plus ``penalty`` / 2 · ‖W‖². The norm is the
    dual one of ``threat``; without a threat ε is 0. With two classes this is the mean of the cross-entropy under the
    worst perturbation, with more an upper bound of it, since no single perturbation is the worst for all j at once. The
    loss is convex, so the start does not matter; the biases are not penalised.

    Args:
        values: in any unit; the radius of ``threat`` is in the same one.
        labels: in [0, classes).
        penalty: of the squared weights, 0 or more. Where the classes can be separated, 0 lets the weights grow for as
            long as it is run.
        iterations: at most so many, 1 or more.

    Returns:
        A float64 classifier, on the device of ``values``.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: shapes disagree, a value is not finite, a label is no class, there are fewer than two classes or no
            rows, or the threat has no bound.

    >>> values, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> fit_linear(values, labels, classes=2).predictions(values).tolist()
    [0, 0, 1, 1]

    Source: the robust linear model of Goh 2019 (Distill, robust feature leakage), who leaves the training open.
    """
    sizes = inputs.tensor("values", values, "n k", inputs.FLOATS)
    inputs.labels(labels, count=len(values), beside="values")
    inputs.whole("classes", classes, least=2)
    if threat is not None:
        check_threat(threat)
        if threat.eps == math.inf:
            raise ValueError(f"threat must have a finite radius, got {threat}")
    inputs.number("penalty", penalty, least=0)
    inputs.whole("iterations", iterations, least=1)
    if not len(values):
        raise ValueError("values must have one row or more, got none")
    inputs.look(("values", values, inputs.FINITE), ("labels", labels, (0, classes - 1)))
    # Centred, so that bias and weights do not fight; moved back at the end.
    centre = values.double().mean(0)
    rows = (values.double() - centre).float()
    weights = torch.zeros(classes, sizes["k"], device=values.device, requires_grad=True)
    bias = torch.zeros(classes, device=values.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-10
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = rows @ weights.T + bias
        if threat is not None and threat.eps > 0:
            scores = scores + threat.eps * _distances(weights, threat)[labels]
        total = F.cross_entropy(scores, labels) + penalty / 2 * weights.square().sum()
        total.backward()
        return total.detach()

    optimizer.step(loss)
    found, offset = weights.detach().double(), bias.detach().double()
    # Against a radius that nothing linear withstands the best weights are 0, where the loss has a kink.
    frequency = (torch.bincount(labels, minlength=classes) / len(labels)).clamp(min=1e-12).double().log()
    least = F.cross_entropy(frequency.expand(len(labels), -1), labels)
    if not (bool(found.isfinite().all()) and float(loss()) <= float(least)):
        return LinearClassifier(torch.zeros_like(found), frequency)
    return LinearClassifier(found, offset - found @ centre)


def _distances(weights: Tensor, threat: Threat) -> Tensor:
    """‖w_i − w_j‖ in the dual norm (classes, classes): 0 where i = j."""
    count = len(weights)
    differences = (weights[:, None] - weights).flatten(0, 1)
    apart = ~torch.eye(count, dtype=torch.bool, device=weights.device).flatten()
    # A norm has no gradient at 0: the diagonal is left out, and what coincides is moved apart by nothing visible.
    return (
        torch.zeros_like(differences[:, 0])
        .masked_scatter(apart, threat.dual_norm(differences[apart]))
        .view(count, count)
    )


def principal_directions(
    images: Float[Tensor, "n c h w"],
) -> tuple[Float[Tensor, "d c h w"], Float[Tensor, " d"]]:
    """The directions of length 1 in which images vary, most varied first, and their standard deviations; float64.

    They are the right singular vectors of the centred images, as many as there are images or pixels. The sign of each
    is such that its largest entry in absolute value is positive.

    Raises:
        TypeError, ValueError: no images in [0, 1], or fewer than two.
    """
    inputs.images(images, least=2)
    inputs.look(("images", images, inputs.BOX))
    flat = images.flatten(1).double()
    _, values, rows = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return rows.view(-1, *images.shape[1:]), values / math.sqrt(len(flat))


def signed_sum(
    directions: Float[Tensor, "k c h w"], images: Float[Tensor, "n c h w"], positive: Bool[Tensor, " n"]
) -> Float[Tensor, "c h w"]:
    """Σ_i sign(E[y ⟨a_i, x⟩]) a_i of length 1: many directions, each turned so that it agrees with y = ±1.

    Args:
        directions: the a_i, in the lengths in which they are to count.
        images: on which the signs are found; the centre of both sides is taken off first.
        positive: where y = +1.

    Raises:
        TypeError, ValueError: an argument of another type or size, a side without images, or a sum of length 0.

    Source: the ensembles of Goh 2019 (Distill, two examples of useful, non-robust features).
    """
    sizes = inputs.images(images, least=2)
    inputs.tensor("directions", directions, "k c h w", inputs.FLOATS, like="images", **{s: sizes[s] for s in "chw"})
    inputs.tensor("positive", positive, "n", inputs.BOOL, like="images", n=len(images))
    inputs.look(("images", images, inputs.BOX), ("directions", directions, inputs.FINITE))
    if not bool(positive.any()) or bool(positive.all()):
        raise ValueError(f"positive: both sides need images, got {int(positive.sum())} of {len(positive)} with y = +1")
    rows = directions.flatten(1).double()
    gap = (images[positive].double().mean(0) - images[~positive].double().mean(0)).flatten()
    total = (rows @ gap).sign() @ rows
    if not float(total.norm()) > 0:
        raise ValueError("directions: their signed sum has length 0")
    found: Tensor = (total / total.norm()).view(directions.shape[1:])
    return found
