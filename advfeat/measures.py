"""Numbers about a model on a dataset, each with its uncertainty."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, batches, check_dataset
from advfeat.estimates import Estimate
from advfeat.evaluation_mode import check_eval
from advfeat.models import ready


def predictions(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> Int[Tensor, " n"]:
    """The class that the model gives to each image.

    Raises:
        TypeError: ``model`` is no network, does not answer with logits (n, classes), or ``dataset`` is no dataset.
        ValueError: the model is in training mode, where an answer depends on the other images of its batch; it has
            fewer classes than the dataset; or its logits are not finite: NaN would count as an answer.
    """
    inputs.network(model)
    check_eval(model)
    check_dataset(dataset, least=1)
    with torch.no_grad():
        pieces = batches(dataset, batch_size=batch_size)
        answers = torch.cat([answers_of(model, images, dataset.num_classes) for images, _ in pieces])
    check_answered(answers)
    return answers


def answers_of(model: nn.Module, images: Tensor, classes: int) -> Tensor:
    """The class of each image, or −1 where a logit is not finite."""
    logits = model(images)
    inputs.logits(logits, len(images), classes)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def check_answered(answers: Tensor) -> None:
    """Refuse answers of which one is −1: NaN would count as an answer."""
    if broken := int((answers < 0).sum()):
        raise ValueError(f"model: its logits are not finite for {broken} of {len(answers)} images")


def accuracy(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> Estimate:
    """Share of images classified as labelled, by the model in float32 with its BatchNorm folded.

    A network that is no ``Classifier`` is asked as it is, in eval mode: see ``models.ready``.

    Raises:
        TypeError, ValueError: from ``models.ready`` and ``predictions``.
    """
    answers = predictions(ready(model, dtype=torch.float32), dataset, batch_size=batch_size)
    return Estimate.of_rate(int((answers == dataset.labels).sum()), len(dataset))


def signal_kept(
    dataset: Dataset, original: Dataset, templates: Float[Tensor, "classes 3 h w"], *, paired: bool = True
) -> Estimate:
    """The share of a known linear feature's signal about the labels that a dataset made from ``original`` keeps.

    With f_c(x) = ⟨x, T_c⟩ an image labelled y says f_y(x) minus the mean of f_c(x) over the other classes c. This is
    the mean of that over ``dataset``, each image with the label that it has there, divided by the mean over
    ``original``: 1 if the feature tells as much about the label as before, 0 if it tells nothing, negative if it
    misleads.

    Args:
        templates: T, one per class, such as the shapes or the textures of a planted world.
        paired: whether each image was made from the one of ``original`` in its row. The interval of the ratio then
            counts the variation common to both only once (delta method); otherwise the denominator is taken as exact.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: not one template per class, templates of another size than the images or not finite, the feature
            says nothing true about the labels of ``original``, or pairs are wanted of datasets of different sizes.

    Source: section 3.1 of Ilyas et al. 2019, which defines D_R by E[f(x) y], for features that are known.
    """
    check_dataset(dataset, least=2)
    check_dataset(original, least=1, name="original")
    inputs.flag("paired", paired)
    _, channels, height, width = dataset.images.shape
    inputs.tensor("templates", templates, "classes c h w", inputs.FLOATS, c=channels, h=height, w=width)
    inputs.look(("templates", templates, inputs.FINITE))
    if original.images.shape[1:] != dataset.images.shape[1:] or original.num_classes != dataset.num_classes:
        raise ValueError(f"original must have the classes and the image size of dataset, got {original.name}")
    if len(templates) != dataset.num_classes:
        raise ValueError(f"{len(templates)} templates for {dataset.num_classes} classes")

    def said(of: Dataset) -> Tensor:
        responses = of.images.flatten(1).double() @ templates.flatten(1).T.to(of.images.device).double()
        own = responses.gather(1, of.labels[:, None]).squeeze(1)
        return own - (responses.sum(1) - own) / (of.num_classes - 1)

    if paired and len(dataset) != len(original):
        raise ValueError(f"pairs need as many images in both, got {len(dataset)} and {len(original)}; or paired=False")
    before = said(original)
    whole = float(before.mean())
    if not whole > 0:
        raise ValueError(f"the templates say nothing true about the labels of {original.name}: mean {whole:.3g}")
    share = said(dataset) / whole
    if paired:
        share -= share.mean() * (before / whole - 1)  # of mean 0: it moves the spread, not the mean
    return Estimate.of_mean(share.cpu())
