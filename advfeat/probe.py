"""Transfer learning: how well a network trained on one task serves another one.

Two ways are measured, as in Salman et al. 2020: a *linear probe* trains a new linear layer on the frozen representation
(their "fixed-feature" transfer), *fine-tuning* trains every weight, from those of the source network ("full-network").
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, batches, check_dataset
from advfeat.estimates import Estimate
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, FrozenClassifier, freeze
from advfeat.train import train

PENALTIES = (1.0, 0.1, 0.01, 1e-3)
"""The regularisation that ``linear_probe`` chooses from, by default."""

_MOST_STEPS = 20_000  # of L-BFGS; fits of thousands of images take some hundred
_FLAT = 1e-5  # largest entry of the gradient at the end; at the start it is about 1


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear layer on standardised features.

    Attributes:
        weight: float64 (classes, d), on standardised features.
        bias: float64 (classes,).
        centre: mean of each feature over the training images, float64 (d,).
        scale: its standard deviation; 1 for a feature that is constant there.
        penalty: the chosen regularisation.
        held_out: penalty → accuracy on the training images that were held out for the choice.
    """

    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"]
    centre: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    penalty: float
    held_out: Mapping[float, Estimate]

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        """The scores of each class, float64.

        Raises:
            TypeError, ValueError: features of another type or width, or not finite.
        """
        inputs.tensor("features", features, "n d", inputs.FLOATS, like="the probe", d=len(self.centre))
        inputs.look(("features", features, inputs.FINITE))
        return (features.cpu().double() - self.centre) / self.scale @ self.weight.T + self.bias

    def accuracy(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Estimate:
        """Share of images classified as labelled.

        Raises:
            TypeError, ValueError: as in ``logits``; labels that are no classes of the probe, or no image.
        """
        logits = self.logits(features)
        inputs.labels(labels, count=len(features), beside="features")
        if not len(features):
            raise ValueError("features must be of one image or more, got none")
        inputs.look(("labels", labels, (0, len(self.bias) - 1)))
        return Estimate.of_rate(int((logits.argmax(1) == labels.cpu()).sum()), len(labels))


def frozen_features(model: Classifier, dataset: Dataset, *, batch_size: int = 500) -> Float[Tensor, "n d"]:
    """The representation of each image, float32 on the CPU, by the model in evaluation mode with its BatchNorm folded.

    Raises:
        TypeError: ``model`` is no ``Classifier``, or ``dataset`` no dataset; and from ``models.freeze``.
        ValueError: no image, or a representation that is not finite.
    """
    inputs.instance("model", model, Classifier, "a models.Classifier")
    check_dataset(dataset, least=1)
    frozen = freeze(model, dtype=torch.float32)
    with torch.no_grad():
        pieces = [frozen.representation(images).cpu() for images, _ in batches(dataset, batch_size=batch_size)]
    found = torch.cat(pieces)
    if broken := int((~found.isfinite().all(1)).sum()):
        raise ValueError(f"model: its representation is not finite for {broken} of {len(found)} images")
    return found


def linear_probe(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    held_out: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """Multinomial logistic regression on frozen features, to convergence by L-BFGS in float64.

    With z the standardised features, the layer minimises the mean of −log softmax(W z + b)_y plus penalty/2 · ‖W‖². The
    penalty is the one with the highest accuracy on training images that are held out (the larger of two that tie);
    then the layer is fitted to all of them. Test images play no part.

    Args:
        features: of the training images, see ``frozen_features``.
        labels: in [0, classes).
        penalties: positive; with one alone nothing is held out.
        held_out: share of the training images for the choice, in (0, 1).
        seed: draws them.

    Raises:
        TypeError, ValueError: an argument of another type, shape or range; too few images to hold any out.
        FloatingPointError: L-BFGS stopped before the gradient vanished.

    Source: the fixed-feature transfer of Salman et al. 2020, who fit the layer by SGD. Here the problem is convex and
    small, so its solution is computed, and no learning rate has to be chosen.
    """
    known = inputs.tensor("features", features, "n d", inputs.FLOATS)
    inputs.labels(labels, count=known["n"], beside="features")
    inputs.whole("classes", classes, least=2)
    inputs.instance("penalties", penalties, (tuple, list), "a list of positive numbers")
    for penalty in penalties:
        inputs.number("penalties", penalty, above=0)
    if not penalties:
        raise ValueError("penalties must name one number or more, got none")
    inputs.number("held_out", held_out, above=0, most=1)
    if held_out == 1:
        raise ValueError("held_out must be in (0, 1), got 1: nothing would be left to learn from")
    inputs.seed(seed)
    inputs.look(("features", features, inputs.FINITE), ("labels", labels, (0, classes - 1)))
    apart = round(held_out * known["n"])
    if known["n"] < 2 or (len(penalties) > 1 and not 0 < apart < known["n"]):
        raise ValueError(f"features: too few images, {known['n']}, to hold out a share of {held_out:g}")
    rows, targets = features.cpu().double(), labels.cpu()
    chosen, judged = float(penalties[0]), {}
    if len(penalties) > 1:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        judge, learn = order[:apart], order[apart:]
        start = None
        for penalty in sorted(map(float, penalties), reverse=True):  # each fit begins at the end of a smoother one
            fitted = _fit(rows[learn], targets[learn], classes, penalty, start)
            start = fitted
            judged[penalty] = fitted.accuracy(rows[judge], targets[judge])
        chosen = max(judged, key=lambda penalty: (judged[penalty].value, penalty))
    fitted = _fit(rows, targets, classes, chosen)
    return LinearProbe(fitted.weight, fitted.bias, fitted.centre, fitted.scale, chosen, judged)


def _fit(
    features: Tensor, labels: Tensor, classes: int, penalty: float, start: LinearProbe | None = None
) -> LinearProbe:
    centre, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 1e-9 * (1 + centre.abs()), scale, torch.ones_like(scale))
    z = ((features - centre) / scale).numpy()
    one_hot = np.eye(classes)[labels.numpy()]
    count, width = z.shape

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        layer = flat.reshape(classes, width + 1)
        weight, bias = layer[:, :-1], layer[:, -1]
        scores = z @ weight.T + bias
        scores -= scores.max(1, keepdims=True)
        powers = np.exp(scores)
        total = powers.sum(1, keepdims=True)
        value = float((np.log(total[:, 0]) - (scores * one_hot).sum(1)).mean() + penalty / 2 * (weight**2).sum())
        error = (powers / total - one_hot) / count
        return value, np.concatenate([error.T @ z + penalty * weight, error.sum(0)[:, None]], 1).ravel()

    first = np.zeros((classes, width + 1))
    if start is not None:
        first = np.concatenate([start.weight.numpy(), start.bias.numpy()[:, None]], 1)
    options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "gtol": _FLAT / 10, "ftol": 0.0}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    if not np.abs(found.jac).max() <= _FLAT:  # catches NaN as well
        raise FloatingPointError(
            f"L-BFGS stopped after {found.nit} steps with a gradient of {np.abs(found.jac).max():.2g}: {found.message}"
        )
    layer = torch.from_numpy(found.x.reshape(classes, width + 1))
    return LinearProbe(layer[:, :-1].contiguous(), layer[:, -1].contiguous(), centre, scale, penalty, {})


def fine_tuned(model: Classifier, dataset: Dataset, config: TrainConfig, *, seed: int) -> Classifier:
    """A copy of ``model`` with a new head for the classes of ``dataset``, all of whose weights are trained on it.

    Fixed first layers are trained as well, so that what a network can become does not depend on how it was made.

    Args:
        model: the source; it stays as it is.
        seed: draws the head, the order of the images, and their shifts and flips.

    Raises:
        TypeError: ``model`` is no classifier, or a frozen one, whose weights cannot be trained.
        ValueError, FloatingPointError: from ``train.train``.

    Source: the full-network transfer of Salman et al. 2020.
    """
    inputs.instance("model", model, Classifier, "a models.Classifier")
    if isinstance(model, FrozenClassifier):
        raise TypeError("model must be a models.Classifier that can be trained, got a FrozenClassifier")
    check_dataset(dataset)
    inputs.instance("config", config, TrainConfig, "a TrainConfig")
    inputs.seed(seed)
    copied = copy.deepcopy(model)
    old = copied.head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(old.in_features, dataset.num_classes, bias=old.bias is not None)
    copied.head = head.to(old.weight.device)
    copied.requires_grad_(True)
    train(copied, dataset, config, seed=seed, description="fine-tuning")
    return copied
