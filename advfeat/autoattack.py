"""AutoAttack, the standard strong evaluation: the only file that imports its package.

The package is the authors' own code, an optional extra: ``pip install "advfeat[autoattack]"``. Two other packages have
versions of their own, with other results: torchattacks runs APGD and FAB for 10 steps instead of 100 (and in ℓ2 it
moves all images of a batch by the step size of the first), and adversarial-robustness-toolbox replaces the two targeted
attacks by an untargeted APGD and DeepFool.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, check_dataset
from advfeat.evaluation_mode import check_eval
from advfeat.models import ready
from advfeat.shards import Shards, check_pieces, fill_in_pieces
from advfeat.threats import Threat, check_threat

NORMS = ("L2", "Linf")
"""In which it runs here. The package knows ℓ1, too, by another search than the one described below."""

MIN_CLASSES = 4
"""The targeted loss divides by a difference of the first, third and fourth largest logit."""

MIN_SIDE = 5
"""Square divides the image into five by five tiles."""


def installed() -> bool:
    """Whether the extra is installed."""
    return find_spec("pyautoattack") is not None


def autoattack(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> Float[Tensor, "n c h w"]:
    """The adversarial images of AutoAttack's ``standard`` version inside ``threat``; images that resist are unchanged.

    Four attacks run one after the other, each on the images that withstood the attacks before: APGD on the
    cross-entropy (100 steps), APGD targeted at each of up to 9 wrong classes (100 steps each), FAB targeted at the same
    classes, and Square, which uses no gradient (5,000 queries).

    Args:
        model: maps images to logits, in eval mode and in float32, because its answers decide which images are
            adversarial.
        seed: seed of the random starts and of Square's draws; the global generators are restored.
        batch_size: images attacked at once. The draws run through a whole batch, so the images depend on the batch size
            and on their order, by a few hundredths of a pixel's range: record the batch size with the images.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        TypeError: an argument of another type or dtype, or a model that does not answer with logits.
        ValueError: the threat has another norm than those in ``NORMS``, the radius is 0 or infinite, the model is in
            training mode, it knows fewer than four classes or answers with logits that are not finite, a label is no
            class, images are not in [0, 1], smaller than 5 × 5 or none, or ``torch.inference_mode`` is on.

    Source: Croce and Hein 2020; their package ``pyautoattack``.
    """
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('AutoAttack needs an extra: pip install "advfeat[autoattack]"') from error
    inputs.network(model)
    check_eval(model)
    inputs.gradients_possible(model)
    check_threat(threat, finite=True)
    if threat.norm not in NORMS:
        raise ValueError(f"threat must be of the norm {' or '.join(NORMS)} for AutoAttack, got {threat}")
    inputs.seed(seed)
    inputs.whole("batch_size", batch_size, least=1)
    inputs.images(images, model=model)
    inputs.labels(labels, count=len(images))
    if not len(images):
        raise ValueError("images must be one or more, got none")
    height, width = images.shape[2:]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"AutoAttack needs images with sides of {MIN_SIDE} pixels or more, got {height} × {width}")
    with torch.no_grad():
        answer = model(images[:1])
    inputs.logits(answer, 1)
    classes = answer.shape[1]
    if classes < MIN_CLASSES:
        raise ValueError(f"AutoAttack needs {MIN_CLASSES} classes or more, the model has {classes}")
    inputs.look(("images", images, inputs.BOX), ("labels", labels, (0, classes - 1)))
    if not bool(answer.isfinite().all()):
        raise ValueError("model: its logits are not finite, so its answers mean nothing")
    attack = AutoAttack(model, norm=threat.norm, eps=threat.eps, device=images.device, seed=seed)
    # Nine target classes are its fixed number; with fewer than ten classes it would run out of them.
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    # AutoAttack seeds the global generators, and one of its checks switches off a tracer of this process (a debugger).
    tracer = sys.gettrace()
    # One of the four attacks calls backward(), which would leave gradients in the parameters.
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            found, _ = attack.run_standard_evaluation(images, labels, batch_size=batch_size)
    finally:
        sys.settrace(tracer)
        for parameter in learning:
            parameter.requires_grad_(True)
    adv: Tensor = found.detach()
    return adv


def autoattacked_dataset(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = 100,
    shards: Shards | None = None,
) -> Dataset:
    """Every image as AutoAttack leaves it: an adversarial one where it found one, otherwise unchanged.

    So ``measures.accuracy`` of the model on it is its accuracy under AutoAttack.

    Args:
        model: the model that is attacked, in float32.
        threat: the ball around each image, such as ``L2(0.25)``.
        seed: of AutoAttack's draws, begun anew for every piece.
        batch_size: images per piece; finished pieces go to ``shards``, so that a run that was stopped goes on.
            AutoAttack's images depend on it, so ``info`` names it beside threat and seed.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        TypeError, ValueError: from ``autoattack``, or ``batch_size`` is not positive.

    Source: Croce and Hein 2020, see ``autoattack``.
    """
    check_dataset(dataset)
    check_threat(threat, finite=True)
    inputs.seed(seed)
    check_pieces(batch_size, shards)
    frozen = ready(model, dtype=torch.float32)

    def attack(rows: slice) -> Tensor:
        return autoattack(frozen, dataset.images[rows], dataset.labels[rows], threat, seed=seed, batch_size=batch_size)

    images = torch.empty_like(dataset.images)
    fill_in_pieces(images, attack, f"AutoAttack {threat}", batch_size, shards)
    return dataset.replace(
        images=images,
        name=f"{dataset.name}, AutoAttack",
        info={"from": dict(dataset.info), "threat": str(threat), "seed": seed, "batch_size": batch_size},
    )
