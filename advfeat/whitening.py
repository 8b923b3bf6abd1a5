"""First layers that are computed from the training images instead of trained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.models import Classifier


def whiten(model: Classifier, images: Float[Tensor, "n 3 h w"], *, floor: float = 2e-2) -> Classifier:
    """Set a 2×2 stem to the whitening filters of the images' patches, and keep it there; other networks pass through.

    The filters are the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue (plus
    ``floor``, in squared normalised pixel units), and their negatives. Training starts with decorrelated input, which
    saves epochs. The filters are not trained.

    Raises:
        TypeError, ValueError: ``model`` is no classifier, ``images`` are no float32 images in [0, 1] with a 2×2 patch,
            or ``floor`` is negative.

    Source: KellerJordan/cifar10-airbench, which credits Page 2019.
    """
    inputs.instance("model", model, Classifier, "a models.Classifier")
    inputs.images(images, model=model)
    if not len(images) or min(images.shape[2:]) < 2:
        raise ValueError(f"images must hold a 2×2 patch, got shape {tuple(images.shape)}")
    inputs.number("floor", floor, least=0)
    inputs.look(("images", images, inputs.BOX))
    stem = next(model.features.children(), None)
    if not (isinstance(stem, nn.Conv2d) and stem.kernel_size == (2, 2)):
        return model
    with torch.no_grad():
        normalised = (images[:5000] - model.mean) / model.std
        patches = F.unfold(normalised, 2).transpose(1, 2).reshape(-1, 12)
        # On the CPU in float64: eigenvectors are sensitive, and two devices should agree.
        values, vectors = torch.linalg.eigh(torch.cov(patches.T.cpu().double()))
        filters = (vectors / (values + floor).sqrt()).T.reshape(12, 3, 2, 2)
        stem.weight.copy_(torch.cat([filters, -filters]))
        if stem.bias is not None:
            stem.bias.zero_()
    stem.requires_grad_(False)
    return model
