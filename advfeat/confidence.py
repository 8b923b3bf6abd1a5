"""How well the confidence of a network tells right answers from wrong ones, and familiar images from foreign ones.

The confidence is the largest softmax probability. Right and wrong: calibration error and AURRA, as reported on
ImageNet-A. Familiar and foreign: AUROC, AUPR and the false-positive rate, as reported on ImageNet-O, where an image
scores as foreign by minus its confidence (Hendrycks and Gimpel 2017).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, batches, check_dataset
from advfeat.models import ready


def confidences(
    model: nn.Module, dataset: Dataset, *, batch_size: int = 500
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """The largest softmax probability for each image, float64, and whether that class is its label.

    The model is asked in float32, see ``measures.accuracy``.

    Raises:
        TypeError, ValueError: from ``models.ready``; the model has fewer logits than there are classes, or some that
            are not finite.
    """
    network = ready(model, dtype=torch.float32)
    check_dataset(dataset, least=1)
    found, right = [], []
    with torch.no_grad():
        for images, labels in batches(dataset, batch_size=batch_size):
            logits = network(images)
            inputs.logits(logits, len(images), dataset.num_classes)
            inputs.look(("model: its logits", logits, inputs.FINITE))
            most, answers = logits.double().softmax(1).max(1)
            found.append(most.cpu())
            right.append((answers == labels).cpu())
    return torch.cat(found), torch.cat(right)


def rms_calibration_error(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], *, bin_size: int = 100) -> float:
    """Root mean square of confidence minus accuracy over bins of ``bin_size`` images of similar confidence, in [0, 1].

    The images are sorted by confidence and cut into bins; the last bin takes what is left over (or everything, if there
    are fewer images), and bins count by their size. The code of Hendrycks et al. leaves the last bin out, the one of
    the highest confidence; here it counts, so numbers differ from theirs a little.

    Raises:
        TypeError, ValueError: no images, other types or shapes, confidences outside [0, 1] or ``bin_size`` below 1.

    Source: adaptive bins of Nguyen and O'Connor 2015; used by Hendrycks et al. 2021.
    """
    _check(confidence, right)
    inputs.whole("bin_size", bin_size, least=1)
    order = confidence.argsort(stable=True)
    gap = confidence[order].double() - right[order].double()
    bins = max(len(gap) // bin_size, 1)
    sizes = [bin_size] * (bins - 1) + [len(gap) - bin_size * (bins - 1)]
    return float(sum(len(part) * part.mean() ** 2 for part in gap.split(sizes)) / len(gap)) ** 0.5


def aurra(confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """Area under the curve of accuracy against response rate, in [0, 1].

    A network that answers only where it is most confident has some accuracy there; this is the mean of the accuracies
    on the k most confident images, for k = 1, ..., n. Images of equal confidence share their mean, so their order does
    not count.

    Raises:
        TypeError, ValueError: as ``rms_calibration_error``.

    Source: Hendrycks et al. 2021.
    """
    _check(confidence, right)
    values, groups, sizes = torch.unique(-confidence, return_inverse=True, return_counts=True)
    shares = torch.zeros(len(values), dtype=torch.float64).index_add_(0, groups, right.double()) / sizes
    mean_right = shares.repeat_interleave(sizes)
    return float((mean_right.cumsum(0) / torch.arange(1, len(right) + 1)).mean())


def auroc(foreign: Float[Tensor, " n"], familiar: Float[Tensor, " m"]) -> float:
    """Chance that a foreign image has the larger score of a foreign and a familiar one; a tie counts half.

    Args:
        foreign: scores of the foreign images, such as minus their confidence; these are the positive ones.
        familiar: scores of the others.

    Raises:
        TypeError, ValueError: no images, other types or shapes, or a score that is not finite.
    """
    both = _both(foreign, familiar)
    ranks = rankdata(both.numpy())[: len(foreign)]
    return float((ranks.sum() - len(foreign) * (len(foreign) + 1) / 2) / (len(foreign) * len(familiar)))


def aupr(foreign: Float[Tensor, " n"], familiar: Float[Tensor, " m"]) -> float:
    """Area under precision against recall with the foreign images as the positive ones: average precision.

    At every threshold the precision counts by how much the recall grows there; nothing is interpolated. Without
    information it is the share of foreign images. See ``auroc`` for arguments and errors.
    """
    flagged, found = _thresholds(foreign, familiar)
    precision, recall = found / flagged, found / len(foreign)
    return float((precision * recall.diff(prepend=torch.zeros(1, dtype=torch.float64))).sum())


def fpr_at_tpr(foreign: Float[Tensor, " n"], familiar: Float[Tensor, " m"], *, tpr: float = 0.95) -> float:
    """Share of familiar images taken for foreign at the highest threshold that finds a share ``tpr`` of the foreign.

    See ``auroc`` for arguments and errors; ``tpr`` lies in (0, 1].
    """
    inputs.number("tpr", tpr, above=0, most=1)
    flagged, found = _thresholds(foreign, familiar)
    at = int((found >= tpr * len(foreign) - 1e-9).nonzero()[0])
    return float((flagged[at] - found[at]) / len(familiar))


def _thresholds(foreign: Tensor, familiar: Tensor) -> tuple[Tensor, Tensor]:
    """For each score as a threshold, from the highest down: how many images reach it, and how many foreign ones."""
    both = _both(foreign, familiar)
    is_foreign = (torch.arange(len(both)) < len(foreign)).double()
    values, groups = torch.unique(-both, return_inverse=True)
    flagged, found = (
        torch.zeros(len(values), dtype=torch.float64).index_add_(0, groups, counted).cumsum(0)
        for counted in (torch.ones_like(is_foreign), is_foreign)
    )
    return flagged, found


def _both(foreign: Tensor, familiar: Tensor) -> Tensor:
    for name, scores in (("foreign", foreign), ("familiar", familiar)):
        inputs.tensor(name, scores, "n", inputs.FLOATS)
        if not len(scores):
            raise ValueError(f"{name} must hold a score or more, got none")
    inputs.look(("foreign", foreign, inputs.FINITE), ("familiar", familiar, inputs.FINITE))
    return torch.cat([foreign, familiar]).detach().cpu().double()


def _check(confidence: Tensor, right: Tensor) -> None:
    known = inputs.tensor("confidence", confidence, "n", inputs.FLOATS)
    inputs.tensor("right", right, "n", inputs.BOOL, like="confidence", **known)
    if not len(confidence):
        raise ValueError("confidence must be of an image or more, got none")
    inputs.look(("confidence", confidence, inputs.BOX))
