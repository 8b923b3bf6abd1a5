"""One run of the experiments: a profile, a seed and a device, and everything that chapters share at that scale.

Whatever is trained or constructed here goes through the store, so a chapter finds the work of another one, or does
it itself: chapters can be run in any order. ``profile_recipes`` has the recipes of a profile, and ``make_network`` and
``make_dataset`` make it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from advfeat.authors_release import Release
from advfeat.data import Dataset
from advfeat.engine import fused_steps
from advfeat.experiments.datasets import DATASETS, held_out
from advfeat.experiments.making import Trained, construct_dataset, test_accuracies, train_network
from advfeat.experiments.profile_recipes import Recipes
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.provenance import provenance
from advfeat.experiments.recipes import (
    AutoAttackRecipe,
    ConstructedRecipe,
    ImagesRecipe,
    MatchedRecipe,
    NetworkRecipe,
    ReleasedRecipe,
    TargetedRecipe,
    check_kind,
    plain,
)
from advfeat.experiments.settings import Profile
from advfeat.experiments.store import Store
from advfeat.models import Classifier
from advfeat.shards import Shards
from advfeat.threats import L2
from advfeat.train import resumed_elsewhere


class Run:
    """The experiments at one profile. An unknown ``kind``, ``architecture`` or ``source`` is a ``ValueError``.

    Args:
        profile: a name from ``profiles.PROFILES``, or the path of a profile's file.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        overrides: numbers of the profile to replace, see ``get_profile``.
        released: folder of the authors' released sets, which then take the place of the constructed ones.

    Raises:
        ValueError: unknown profile, override or device, or released sets for a profile that is not CIFAR-10's.
        FileNotFoundError: ``released`` holds no released set.
    """

    def __init__(
        self,
        profile: str,
        *,
        device: str = "auto",
        overrides: Mapping[str, object] | None = None,
        released: Path | str | None = None,
    ) -> None:
        named = get_profile(profile, overrides)
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but PyTorch sees no GPU; use auto or cpu")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        self.released = Release(released, images=named.data.train_images, device=self.device) if released else None
        if self.released is not None and named.data.name != "cifar10":
            raise ValueError(f"released sets are images of CIFAR-10, but profile {profile!r} is not of it")
        # Trained in another precision, a network is another network: recipes and records name the one that was used.
        self.profile: Profile = named.on(self.device.type)
        self.store = Store()
        self.provenance = provenance(self.device)
        self._test_fingerprints: dict[int, str] = {}
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened."""
        return time.perf_counter() - self._started

    @cached_property
    def train_set(self) -> Dataset:
        """The training images."""
        return self._loaded(True)

    @cached_property
    def test_set(self) -> Dataset:
        """The test images, or the training images that are held out in their place."""
        return self._loaded(False)

    def share_images(self, other: Run) -> None:
        """Take the images of another run, which have to be the same: they are then loaded and known by name once.

        Raises:
            ValueError: they are not: other data, or another device.
        """
        if (self.profile.data, self.device) != (other.profile.data, other.device):
            here, there = (f"{run.profile.data} on {run.device}" for run in (self, other))
            raise ValueError(f"other must be a run of {here}, got one of {there}")
        self.train_set, self.test_set = other.train_set, other.test_set
        self.recipes = dataclasses.replace(other.recipes, profile=self.profile)

    def _loaded(self, train: bool) -> Dataset:
        data = self.profile.data
        if data.held_out_from:
            return self._halves[not train].to(self.device)
        return DATASETS[data.name].load(train, data.train_images if train else data.test_images).to(self.device)

    @cached_property
    def _halves(self) -> tuple[Dataset, Dataset]:
        data = self.profile.data
        return held_out(data.name, train_images=data.train_images, begin=data.held_out_from, count=data.test_images)

    @cached_property
    def recipes(self) -> Recipes:
        """The recipes of the methods below."""
        # Gradients in bfloat16 give other images than gradients in float32.
        precision = str(fused_steps.fast_dtype(self.device.type))
        return Recipes(self.profile, self.train_set.fingerprint(), precision)

    def standard(self, *, seed: int, architecture: str | None = None, classes: Sequence[int] | None = None) -> Trained:
        """The network trained on the ordinary images: the profile's own, or one of its ``architectures``.

        With ``classes`` the profile's own sees the images of these classes only. Its answers keep their numbers.
        """
        return self.make_network(self.recipes.standard(seed=seed, architecture=architecture, classes=classes))

    def source(self, *, seed: int, architecture: str | None = None) -> Trained:
        """The ordinary network that D_rand and D_det are made with: ``standard`` at the profile's ``source_width``.

        Or a network of one of the profile's ``architectures``, trained as ``standard`` trains it, from other weights.
        """
        return self.make_network(self.recipes.source(seed=seed, architecture=architecture))

    def robust(self, *, seed: int, eps: float | None = None, classes: Sequence[int] | None = None) -> Trained:
        """The network trained on adversarial images: of the profile's radius, or of ``eps`` with steps to match.

        With ``classes`` it sees the images of these classes only, see ``standard``.
        """
        return self.make_network(self.recipes.robust(seed=seed, eps=eps, classes=classes))

    def match_source(self, *, seed: int) -> Trained:
        """The network trained on adversarial images that D_R is made with; in some profiles one of the ``robust``."""
        return self.make_network(self.recipes.match_source(seed=seed))

    def overfitted(self, *, seed: int, attacked: bool = True) -> Trained:
        """The network trained on adversarial images for too long: the first ``overfit_images`` training images.

        With ``attacked=False`` its control: the same images as they are, the same training without an adversary.
        """
        return self.make_network(self.recipes.overfitted(seed=seed, attacked=attacked))

    def control(self, *, seed: int) -> Trained:
        """The network that those on D_R and D_NR are compared with: as many ordinary images, the same training."""
        return self.make_network(self.recipes.control(seed=seed))

    def constructed(self, kind: str, *, source_seed: int, source: str | None = None) -> Dataset:
        """A dataset made by a network of ``source_seed``: D_R ``match_source``, D_NR ``standard``, others ``source``.

        That seed also makes the random choices: the targets of D_rand, and the starts of the search for D_R and D_NR.
        The authors' own set instead, if the run was given a folder of ``released`` ones.

        Args:
            kind: ``D_R`` or ``D_NR`` (representation matching), ``D_rand`` or ``D_det`` (targeted attack).
            source: an architecture that makes D_rand or D_det in place of the profile's own, see ``Run.source``.
        """
        return self.make_dataset(self._recipe_of(kind, source_seed, source))

    def trained_on(
        self, kind: str, *, source_seed: int, seed: int, architecture: str | None = None, source: str | None = None
    ) -> Trained:
        """A fresh network of ``seed`` trained on the set of ``source_seed`` and ``source``, see ``constructed``.

        Its first weights are not those that the source began with, even where the two seeds are equal. Its architecture
        is the profile's own, or on D_det one of the profile's ``architectures``.
        """
        data = self._recipe_of(kind, source_seed, source)
        return self.make_network(self.recipes.trained_on(data, seed=seed, architecture=architecture))

    def autoattack_set(self, trained: Trained, eps: float) -> Dataset:
        """The first ``autoattack_images`` test images as AutoAttack leaves them inside an ℓ2 ball, kept by the store.

        It takes the better part of an hour on a CPU core for a robust network, so it goes on where it was stopped.

        Raises:
            ModuleNotFoundError, ValueError: from ``autoattack.autoattacked_dataset``.
        """
        return self.make_dataset(self.autoattack_recipe(trained.recipe, eps))

    def autoattack_recipe(self, network: NetworkRecipe, eps: float) -> AutoAttackRecipe:
        """The recipe of ``autoattack_set``."""
        count = self.profile.evaluation.autoattack_images
        return AutoAttackRecipe(network, L2(eps), count, self._test_fingerprint(count))

    def describe(self) -> dict[str, Any]:
        """The profile's every setting and the device, in JSON types, for records."""
        about = {**plain(self.profile.recorded()), "device": self.device.type}
        about |= {"fingerprint": self.train_set.fingerprint()} if DATASETS[self.profile.data.name].varies else {}
        return {**about, "released": True} if self.released else about

    def make_network(self, recipe: NetworkRecipe) -> Trained:
        """The network of a recipe, from the store or trained now on images that the recipe names.

        Raises:
            ValueError: it is of other images than this run's, or of images that are made in another precision.
        """
        classes, images = self.train_set.num_classes, partial(self._images, recipe.data)
        place: dict[str, Any] = {"store": self.store, "device": self.device}
        trained = train_network(recipe, images, classes=classes, watch=self._watch, **place)
        self.provenance |= resumed_elsewhere(trained.history)
        return trained

    def make_dataset(self, recipe: ConstructedRecipe | AutoAttackRecipe) -> Dataset:
        """The dataset of a recipe, from the store or made now by the network that the recipe names.

        Raises:
            ValueError: it is of other images than this run's, or made in another precision.
        """
        if not isinstance(recipe, ReleasedRecipe):
            return self.store.dataset(recipe.key_parts(), partial(self._construct, recipe)).to(self.device)
        if self.released is None:
            raise ValueError(f"the recipe is of a released {recipe.kind}, but this run has no released sets")
        found, fingerprint = self.released.read(recipe.kind)
        _check_same("released images", fingerprint, recipe.fingerprint)
        return found

    def _construct(self, recipe: MatchedRecipe | TargetedRecipe | AutoAttackRecipe, shards: Shards) -> Dataset:
        if isinstance(recipe, AutoAttackRecipe):
            _check_same("test images", self._test_fingerprint(recipe.images), recipe.fingerprint)
            images = self.test_set.subset(slice(0, recipe.images))
            return construct_dataset(recipe, self.make_network(recipe.model).model, images, shards=shards)
        _check_same("precision", self.recipes.precision, recipe.precision)
        matched = isinstance(recipe, MatchedRecipe)
        begun = self.store.finished_with_fewer(recipe.key_parts(), "steps") if matched else None
        source, images = self.make_network(recipe.source).model, self._images(recipe.data)
        return construct_dataset(recipe, source, images, shards=shards, begun=begun and begun.to(self.device))

    def _images(self, recipe: ImagesRecipe | ConstructedRecipe) -> Dataset:
        """The images that a network is trained on, or a dataset is made from."""
        if not isinstance(recipe, ImagesRecipe):
            return self.make_dataset(recipe)
        _check_same("training images", self.recipes.fingerprint, recipe.fingerprint)
        found = self.train_set.subset(slice(0, recipe.images))
        if recipe.classes is None:
            return found
        return found.subset(torch.isin(found.labels, torch.tensor(recipe.classes, device=found.labels.device)))

    def _test_fingerprint(self, count: int) -> str:
        """The fingerprint of the first ``count`` test images, computed once for all radii and networks."""
        if count not in self._test_fingerprints:
            self._test_fingerprints[count] = self.test_set.subset(slice(0, count)).fingerprint()
        return self._test_fingerprints[count]

    def _recipe_of(self, kind: str, source_seed: int, source: str | None) -> ConstructedRecipe:
        check_kind(kind, source)
        if self.released is not None:
            return ReleasedRecipe(kind, self.released.read(kind)[1])
        return self.recipes.constructed(kind, source_seed=source_seed, source=source)

    def _watch(self, model: Classifier) -> dict[str, float]:
        unseen = self.test_set.subset(slice(0, self.profile.watching.images))
        threat = self.profile.training.robust.threat or L2(0)
        return test_accuracies(model, unseen, threat, steps=self.profile.watching.steps)


def _check_same(what: str, here: str, wanted: str) -> None:
    if here != wanted:
        raise ValueError(f"the recipe is of other {what} than this run's: it names {wanted}, the run has {here}")
