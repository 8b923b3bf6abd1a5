"""Makes networks and datasets: all but the images and the network that a recipe names comes from the recipe alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from advfeat.autoattack import autoattacked_dataset
from advfeat.construct import deterministic_target_dataset, nonrobust_dataset, random_target_dataset, robust_dataset
from advfeat.data import Dataset
from advfeat.experiments.checkpoints import DatasetShards
from advfeat.experiments.recipes import AutoAttackRecipe, MatchedRecipe, NetworkRecipe, TargetedRecipe
from advfeat.experiments.store import Store
from advfeat.measures import accuracy
from advfeat.models import Classifier, build_model
from advfeat.robustness import robust_accuracy
from advfeat.shards import Shards
from advfeat.streamed import StreamedDataset
from advfeat.threats import Threat
from advfeat.train import Checkpoint, train
from advfeat.whitening import whiten


@dataclass(frozen=True)
class Trained:
    """A model, its training history and the recipe that identifies it.

    The history has one row per epoch, see ``train.train``. Rows of a network that was watched (``Run.standard``,
    ``Run.robust`` and the like at the profile's own architecture) also hold ``test_accuracy`` and, under PGD at the
    radius of adversarial training, ``robust_test_accuracy`` on the first ``watch_images`` test images. They are there
    to be looked at; no choice is made by them.
    """

    model: Classifier
    history: list[dict[str, float]]
    recipe: NetworkRecipe

    @property
    def network(self) -> str:
        """Its architecture, in words."""
        return self.recipe.words()

    @property
    def seed(self) -> int:
        """The seed that its weights and the order of its images were drawn from."""
        return self.recipe.seed

    @property
    def seconds(self) -> float:
        """Wall time of its training, whenever that was."""
        return sum(row["seconds"] for row in self.history)


def train_network(
    recipe: NetworkRecipe,
    images: Callable[[], Dataset],
    *,
    store: Store,
    classes: int,
    device: torch.device,
    watch: Callable[[Classifier], dict[str, float]] | None = None,
) -> Trained:
    """The network of a recipe, from the store or trained for it.

    Args:
        images: gives the dataset that ``recipe.data`` names; not called where the network is stored.
        classes: how many classes these have.
        watch: measures something after every epoch of a network that is watched, see ``evaluate`` of ``train.train``.

    Raises:
        ValueError, OSError: from ``Store.model``, ``models.build_model`` and ``train.train``.
    """

    def fit(model: Classifier, checkpoint: Checkpoint) -> list[dict[str, float]]:
        dataset = images()
        if recipe.training.whitening:
            whiten(model, dataset.images[:5000])  # as many as it looks at
        evaluate = watch if recipe.watched else None
        about: dict[str, Any] = {"checkpoint": checkpoint, "evaluate": evaluate, "description": str(recipe)}
        return train(model, dataset, recipe.training, seed=recipe.seed, **about)

    fresh = build_model(**recipe.network, seed=recipe.init_seed, classes=classes).to(device)
    return Trained(*store.model(recipe.key_parts(), fresh, fit), recipe)


def test_accuracies(model: Classifier, unseen: Dataset, threat: Threat, *, steps: int) -> dict[str, float]:
    """Accuracy on test images, ordinary and under PGD of ``steps`` steps, for a row of a history."""
    attacked = robust_accuracy(model, unseen, threat, steps=steps)
    return {"test_accuracy": accuracy(model, unseen).value, "robust_test_accuracy": attacked.value}


def construct_dataset(
    recipe: MatchedRecipe | TargetedRecipe | AutoAttackRecipe,
    model: Classifier,
    images: Dataset,
    *,
    shards: Shards | None = None,
    begun: Dataset | None = None,
) -> Dataset:
    """The dataset of a recipe.

    Args:
        model: the network that the recipe names as its ``source``, or as the ``model`` that AutoAttack is run on.
        images: those that the recipe names.
        shards: where finished pieces wait for the rest.
        begun: the dataset of a matched recipe with fewer steps; the search goes on from there, to the same images.

    Raises:
        TypeError, ValueError: from the functions of ``construct``.
    """
    if isinstance(recipe, AutoAttackRecipe):
        return autoattacked_dataset(
            model, images, recipe.threat, seed=recipe.seed, batch_size=recipe.batch_size, shards=shards
        )
    search: dict[str, Any] = {"steps": recipe.steps, "step_size": recipe.step_size, "shards": shards}
    if isinstance(images, StreamedDataset):
        if not isinstance(shards, DatasetShards):
            raise ValueError("shards must name the folder for the images of a streamed dataset, got none")
        search |= {"into": shards.images_file}
    if isinstance(recipe, MatchedRecipe):
        build = robust_dataset if recipe.kind == "D_R" else nonrobust_dataset
        return build(model, images, seed=recipe.source.seed, start=recipe.start, begun=begun, **search)
    if recipe.kind == "D_det":
        return deterministic_target_dataset(model, images, recipe.threat, **search)
    return random_target_dataset(model, images, recipe.threat, seed=recipe.source.seed, **search)
