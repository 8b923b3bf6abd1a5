"""The datasets of the paper, made from a dataset and a model: D_R and D_NR, D_rand and D_det."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.attacks import gray_noise, match_representation, pgd
from advfeat.data import Dataset, check_dataset
from advfeat.models import Classifier, freeze, ready
from advfeat.shards import Shards, check_pieces, fill_in_pieces
from advfeat.threats import FREE, Threat, check_step


def robust_dataset(
    model: Classifier,
    dataset: Dataset,
    *,
    steps: int,
    step_size: float,
    seed: int,
    start: str = "other",
    batch_size: int = 500,
    shards: Shards | None = None,
    begun: Dataset | None = None,
) -> Dataset:
    """D_R: for every image another one that a *robust* model represents alike, with the label of the first.

    x_R = argmin over z in [0, 1]^d of ‖g(z) − g(x)‖₂ / ‖g(x)‖₂, with g the representation of ``model`` and z starting
    at x', drawn independently of x; the pair (x_R, y) is kept. Features that g does not see stay those of x', and so
    have nothing to do with y: x_R ties to its label only the features that the robust model uses.

    Args:
        model: the robust model that represents the images.
        steps: gradient steps, see ``attacks.match_representation``.
        step_size: their ℓ2 length in pixel units.
        seed: draws where the search starts.
        start: ``other``, a different image of the dataset, each of them as likely as the next; or ``noise``, gray with
            normal noise, 0.5 + N(0, 1) / 20 per value, clamped to [0, 1].
        batch_size: images per piece; finished pieces go to ``shards``, so that a run that was stopped goes on.
        begun: the images of the same search with fewer steps. It goes on from them, to the same images: a step
            depends on nothing but the image that it starts from.

    Returns:
        A dataset of the same size, order and labels. ``truth["source_labels"]`` are the labels once more, and with
        ``start="other"`` ``truth["start_index"]`` says at which image each search started.

    Raises:
        ValueError: from ``match_representation``, ``batch_size`` is not positive, ``start`` is neither of the two,
            there is no other image, or ``begun`` is not of the same search (which model made it, it does not say) or
            went further.

    Source: section 3.1 of Ilyas et al. 2019; the noise is that of MadryLab/robust_representations, image_inversion.
    """
    search = _Search(steps, step_size, batch_size, shards)
    return _represented_alike(model, dataset, "D_R", search, seed=seed, start=start, begun=begun)


def nonrobust_dataset(
    model: Classifier,
    dataset: Dataset,
    *,
    steps: int,
    step_size: float,
    seed: int,
    start: str = "other",
    batch_size: int = 500,
    shards: Shards | None = None,
    begun: Dataset | None = None,
) -> Dataset:
    """D_NR: the same with an *ordinary* model, whose representation holds its non-robust features, too.

    To a person x_NR looks like x', the image that it started from, and its label seems random. It is not D_rand: the
    label stays that of x and no class is a target. See ``robust_dataset`` for arguments, result and errors.

    Source: section 3.1 of Ilyas et al. 2019.
    """
    search = _Search(steps, step_size, batch_size, shards)
    return _represented_alike(model, dataset, "D_NR", search, seed=seed, start=start, begun=begun)


def random_target_dataset(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    seed: int,
    batch_size: int = 500,
    shards: Shards | None = None,
) -> Dataset:
    """D_rand: every image attacked towards a class drawn at random, and given that class as its label.

    x_adv = argmin over the threat of L(x', t) with t uniform over *all* classes (so t = y one time in ten); the pair
    (x_adv, t) is kept. To a person the labels look random: only the perturbation ties them to the images.

    See ``deterministic_target_dataset`` for arguments and errors. ``seed`` draws the targets.

    Source: section 3.2 of Ilyas et al. 2019.
    """
    check_dataset(dataset)
    inputs.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(dataset.num_classes, (len(dataset),), generator=generator).to(dataset.labels.device)
    search = _Search(steps, step_size, batch_size, shards)
    return _attacked_towards(model, dataset, targets, threat, "D_rand", search)


def deterministic_target_dataset(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    batch_size: int = 500,
    shards: Shards | None = None,
) -> Dataset:
    """D_det: every image attacked towards the next class, t = (y + 1) mod classes, and given it as its label.

    Here the robust features of an image point to the class *before* its label, so they mislead on ordinary images.

    Args:
        model: the standard model that is attacked.
        threat: the ball around each image, such as ``L2(0.5)``.
        steps: PGD steps, from the image itself.
        step_size: their length in pixel units.
        batch_size: images per piece; finished pieces go to ``shards``, so that a run that was stopped goes on.

    Returns:
        A dataset of the same size and order, whose ``truth["source_labels"]`` are the original labels.

    Raises:
        TypeError, ValueError: from ``pgd``, or ``batch_size`` is not positive.

    Source: section 3.2 of Ilyas et al. 2019.
    """
    check_dataset(dataset)
    targets = (dataset.labels + 1) % dataset.num_classes
    search = _Search(steps, step_size, batch_size, shards)
    return _attacked_towards(model, dataset, targets, threat, "D_det", search)


@dataclass(frozen=True)
class _Search:
    """So many steps of one length, and the pieces that the images are made in."""

    steps: int
    step_size: float
    batch_size: int
    shards: Shards | None

    def check(self, threat: Threat, images: Tensor) -> None:
        check_step(self.step_size, threat, images)
        inputs.whole("steps", self.steps, least=0)
        check_pieces(self.batch_size, self.shards)


def _attacked_towards(
    model: nn.Module, dataset: Dataset, targets: Int[Tensor, " n"], threat: Threat, name: str, search: _Search
) -> Dataset:
    search.check(threat, dataset.images)
    frozen = ready(model)
    classes = getattr(getattr(frozen, "head", None), "out_features", dataset.num_classes)
    if classes < dataset.num_classes:
        raise ValueError(f"model knows {classes} classes, but the dataset has {dataset.num_classes}")

    def attack(rows: slice) -> Tensor:
        attacked = dataset.images[rows]
        moves: dict[str, Any] = {"steps": search.steps, "step_size": search.step_size}
        return pgd(frozen, attacked, targets[rows], threat, targeted=True, **moves)

    images = torch.empty_like(dataset.images)
    fill_in_pieces(images, attack, name, search.batch_size, search.shards)
    return dataset.replace(
        images=images,
        labels=targets,
        name=name,
        truth={**dataset.truth, "source_labels": dataset.labels},
        info={
            "from": dict(dataset.info),
            "threat": str(threat),
            "steps": search.steps,
            "step_size": search.step_size,
        },
    )


def _represented_alike(
    model: Classifier,
    dataset: Dataset,
    name: str,
    search: _Search,
    *,
    seed: int,
    start: str,
    begun: Dataset | None,
) -> Dataset:
    inputs.text("start", start)
    if start not in ("other", "noise"):
        raise ValueError(f"start must be other or noise, got {start!r}")
    check_dataset(dataset)
    inputs.instance("model", model, Classifier, "a models.Classifier, whose representation is matched")
    inputs.seed(seed)
    search.check(FREE, dataset.images)
    generator = torch.Generator().manual_seed(seed)
    count = len(dataset)
    # A copy: two names for one tensor in memory would be refused by the file format of the store.
    truth = {**dataset.truth, "source_labels": dataset.labels.clone()}
    if start == "other":
        if count < 2:
            raise ValueError(f"start='other' needs two images or more, got {count}")
        # Some 1 to count - 1 rows further on, around the end: every other image is as likely, the image itself is not.
        index = (torch.arange(count) + torch.randint(1, count, (count,), generator=generator)) % count
        truth["start_index"] = index.to(dataset.labels.device)
        images = dataset.images[truth["start_index"]]
    else:
        images = gray_noise(dataset.images.shape, generator).to(dataset.images.device)
    about = {"step_size": search.step_size, "start": start, "seed": seed}
    info = {"from": dict(dataset.info), "steps": search.steps, **about}
    whole = dataset.replace(images=images, name=name, truth=truth, info=info)
    steps = search.steps
    if begun is not None:
        steps -= _steps_of(begun, whole)
        images = begun.images.clone()
    frozen = freeze(model)

    def match(rows: slice) -> Tensor:
        with torch.no_grad():
            target = frozen.representation(dataset.images[rows])
        return match_representation(frozen, images[rows], target, steps=steps, step_size=search.step_size)

    fill_in_pieces(images, match, name, search.batch_size, search.shards)
    return whole.replace(images=images)


def _steps_of(begun: Dataset, whole: Dataset) -> int:
    """How many steps of the search for ``whole`` have led to ``begun``.

    Raises:
        TypeError, ValueError: it is no dataset, or comes from another search or from one that went further.
    """
    inputs.instance("begun", begun, Dataset, "a dataset made by the same search with fewer steps")
    steps = begun.info.get("steps")
    # As JSON, in which a set that was stored has lists where one in memory may have tuples.
    first, second = (json.dumps({**one.info, "steps": 0}, sort_keys=True) for one in (begun, whole))
    same = first == second and begun.name == whole.name and torch.equal(begun.labels, whole.labels)
    if not (same and isinstance(steps, int) and isinstance(most := whole.info["steps"], int) and steps <= most):
        raise ValueError(f"{whole.name} of {whole.info} is not to be made from {begun.name} of {begun.info}")
    return steps
