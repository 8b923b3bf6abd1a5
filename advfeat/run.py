"""One run of the experiments: a profile, a seed and a device, and everything that chapters share at that scale.

Whatever is trained or constructed here goes through the store, so a chapter finds what another one has made, or makes
it itself: chapters can be run in any order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from advfeat import kernels, records
from advfeat.attacks import L2, Threat
from advfeat.construct import (
    autoattacked_dataset,
    deterministic_target_dataset,
    nonrobust_dataset,
    random_target_dataset,
    robust_dataset,
)
from advfeat.data import Dataset, cifar10
from advfeat.measures import accuracy, robust_accuracy
from advfeat.models import Classifier, build_model, whiten
from advfeat.planted import PlantedWorld, planted
from advfeat.profiles import Profile, get_profile
from advfeat.released import release, released
from advfeat.store import Recipe, Shards, Store
from advfeat.train import Checkpoint, TrainConfig, resumed_elsewhere, train

CONSTRUCTED = ("D_R", "D_NR", "D_rand", "D_det")
# Added to the seed of a network's first weights if it is trained on a constructed dataset. Else it would begin with the
# weights that the source of that dataset began with, wherever both have one seed and one architecture. Twice that for a
# source of another architecture, which is neither the ordinary network of that name nor the one trained on its images.
_APART = 1_000_000


@dataclass(frozen=True)
class Trained:
    """A model, its training history and the recipe that identifies it.

    The history has one row per epoch, see ``train.train``. Rows of ``Run.standard``, ``Run.robust`` and
    ``Run.overfitted``, at the profile's own architecture, also hold ``test_accuracy`` and, under PGD at the radius of
    adversarial training, ``robust_test_accuracy`` on the first ``watch_images`` test images. They are there to be
    looked at; no choice is made by them.
    """

    model: Classifier
    history: list[dict[str, float]]
    recipe: Recipe

    @property
    def network(self) -> str:
        """Its architecture, in words."""
        network = self.recipe["network"]
        words = [network["name"], f"width {network['width']}"]
        words += [f"depth {network['depth']}"] if network.get("depth") else []
        words += [f"patch {network['patch']}"] if network.get("patch", 1) > 1 else []
        words += [f"boost {network['boost']:g}"] if network.get("boost", 1) != 1 else []
        words += ["whitened"] if network.get("whitened") else []
        return ", ".join(words)

    @property
    def seed(self) -> int:
        """What its weights and the order of its images were drawn from."""
        return self.recipe["seed"]

    @property
    def seconds(self) -> float:
        """Wall time of its training, whenever that was."""
        return sum(row["seconds"] for row in self.history)


class Run:
    """The experiments at one profile.

    Args:
        profile: a name from ``profiles.PROFILES``.
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
        self.released = release(released) if released else None
        self._released: dict[str, Dataset] = {}
        if self.released is not None and named.data != "cifar10":
            raise ValueError(f"released sets are images of CIFAR-10, but profile {profile!r} is not of it")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        # Trained in another precision, a network is another network: recipes and records name the one that was used.
        self.profile: Profile = named.on(self.device.type)
        self.store = Store()
        self.provenance = records.provenance(self.device)
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened."""
        return time.perf_counter() - self._started

    @cached_property
    def train_set(self) -> Dataset:
        """The training images."""
        return self._load(train=True)

    @cached_property
    def test_set(self) -> Dataset:
        """The test images."""
        return self._load(train=False)

    def standard(self, *, seed: int, architecture: str | None = None) -> Trained:
        """The network trained on the ordinary images: the profile's own, or one of its ``architectures``.

        Raises:
            ValueError: an architecture that the profile does not have.
        """
        recipe, config = self._ordinary_recipe(seed, self.profile.width, architecture)
        if architecture == self.profile.network:
            # Else it would begin with the weights of the network that it is to be compared with.
            recipe["weights"] = seed + _APART
        watch = self._watch if architecture is None else None
        return self._trained(lambda: self.train_set, recipe, config, architecture or "standard", watch=watch)

    def source(self, *, seed: int, architecture: str | None = None) -> Trained:
        """The ordinary network that D_rand and D_det are made with: ``standard`` at the profile's ``source_width``.

        Or a network of one of the profile's ``architectures``, trained as ``standard`` trains it, from other weights.

        Raises:
            ValueError: an architecture that the profile does not have.
        """
        recipe, config = self._source_recipe(seed, architecture)
        watch = self._watch if architecture is None else None
        return self._trained(lambda: self.train_set, recipe, config, "source", watch=watch)

    def robust(self, *, seed: int, eps: float | None = None) -> Trained:
        """The network trained on adversarial images: of the profile's radius, or of ``eps`` with steps to match."""
        config = self.profile.robust if eps is None else self.profile.robust.at_radius(eps)
        return self._adversarial(config, seed)

    def match_source(self, *, seed: int) -> Trained:
        """The network trained on adversarial images that D_R is made with; in some profiles one of the ``robust``."""
        return self._adversarial(self.profile.matched_with, seed)

    def overfitted(self, *, seed: int, attacked: bool = True) -> Trained:
        """The network trained on adversarial images for too long: the first ``overfit_images`` training images.

        With ``attacked=False`` its control: the same images as they are, the same training without an adversary.
        """
        seen, config, description = self.profile.overfit_images, self.profile.overfit, "overfitted"
        if not attacked:
            config, description = dataclasses.replace(config, threat=None), "overfitted, no adversary"
        recipe = self._model_recipe({**self._data_recipe, "images": seen}, config, seed)
        images = partial(self.train_set.subset, slice(0, seen))
        return self._trained(images, recipe, config, description, watch=self._watch)

    def control(self, *, seed: int) -> Trained:
        """The network that those on D_R and D_NR are compared with: as many ordinary images, the same training."""
        count, config = self.profile.match_images, self.profile.on_matched
        data = self._data_recipe if count >= self.profile.train_images else {**self._data_recipe, "images": count}
        recipe = self._model_recipe(data, config, seed)
        # Watched, since in some profiles it is ``standard`` by another name, of one recipe and so one network.
        images = partial(self.train_set.subset, slice(0, count))
        return self._trained(images, recipe, config, "control", watch=self._watch)

    def constructed(self, kind: str, *, source_seed: int, source: str | None = None) -> Dataset:
        """A dataset made by a network of ``source_seed``: D_R ``match_source``, D_NR ``standard``, others ``source``.

        That seed also draws what is random: the targets of D_rand, and where the search for D_R and D_NR starts. The
        authors' own set instead, if the run was given a folder of ``released`` ones.

        Args:
            kind: ``D_R`` or ``D_NR`` (representation matching), ``D_rand`` or ``D_det`` (targeted attack).
            source: an architecture that makes D_rand or D_det in place of the profile's own, see ``Run.source``.

        Raises:
            ValueError: another ``kind``, or a ``source`` that the profile does not have or not for that kind.
        """
        if self.released is not None:
            return self._read_released(kind, self.released)
        recipe = self._constructed_recipe(kind, source_seed, source)

        def build(shards: Shards) -> Dataset:
            # From the recipe, so that what is made is what the key says.
            search: dict[str, Any] = {"steps": recipe["steps"], "step_size": recipe["step_size"], "shards": shards}
            if kind in ("D_R", "D_NR"):
                matched = self.train_set.subset(slice(0, recipe["images"]))
                search |= {"start": recipe["start"], "seed": source_seed, "begun": self._begun(recipe)}
                if kind == "D_R":
                    return robust_dataset(self.match_source(seed=source_seed).model, matched, **search)
                return nonrobust_dataset(self.standard(seed=source_seed).model, matched, **search)
            maker, threat = self.source(seed=source_seed, architecture=source).model, L2(self.profile.eps)
            if kind == "D_rand":
                return random_target_dataset(maker, self.train_set, threat, seed=source_seed, **search)
            return deterministic_target_dataset(maker, self.train_set, threat, **search)

        return self.store.dataset(recipe, build).to(self.device)

    def trained_on(
        self, kind: str, *, source_seed: int, seed: int, architecture: str | None = None, source: str | None = None
    ) -> Trained:
        """A fresh network of ``seed`` trained on the set of ``source_seed`` and ``source``, see ``constructed``.

        Its first weights are not those that the source began with, even where the two seeds are equal. Its architecture
        is the profile's own, or on D_det one of the profile's ``architectures``.

        Raises:
            ValueError: another ``kind``, or an architecture that the profile does not have or not for that kind.
        """
        data = self._constructed_recipe(kind, source_seed, source)
        profile = self.profile
        config = {"D_rand": profile.on_rand, "D_det": profile.on_det}.get(kind, profile.on_matched)
        if architecture is None:
            recipe, description = self._model_recipe(data, config, seed), kind
        elif kind == "D_det":
            config, description = profile.architecture_det, f"{architecture} on {kind}"
            recipe = self._model_recipe(data, config, seed, architecture=architecture)
        else:
            raise ValueError(f"architectures are trained on D_det, got kind={kind!r}")
        recipe["weights"] = seed + _APART
        made = partial(self.constructed, kind, source_seed=source_seed, source=source)
        return self._trained(made, recipe, config, description)

    def autoattacked(self, trained: Trained, eps: float) -> Dataset:
        """The first ``autoattack_images`` test images as AutoAttack leaves them inside an ℓ2 ball, kept by the store.

        It takes the better part of an hour on a CPU core for a robust network, so it goes on where it was stopped.

        Raises:
            ModuleNotFoundError, ValueError: from ``construct.autoattacked_dataset``.
        """
        subset, threat = self.test_set.subset(slice(0, self.profile.autoattack_images)), L2(eps)
        # Its draws begin anew with every piece, so what it finds depends on the size of the pieces, too.
        search = {"seed": 0, "batch_size": 100}
        recipe = {
            "kind": "AutoAttack",
            "model": trained.recipe,
            "threat": _plain(threat),
            "data": {"fingerprint": subset.fingerprint()},
            **search,
        }
        return self.store.dataset(
            recipe, lambda shards: autoattacked_dataset(trained.model, subset, threat, shards=shards, **search)
        ).to(self.device)

    def describe(self) -> dict[str, Any]:
        """The profile's every setting and the device, in JSON types, for records."""
        about = {**_plain(self.profile), "device": self.device.type}
        return {**about, "released": True} if self.released else about

    def _load(self, *, train: bool) -> Dataset:
        count = self.profile.train_images if train else self.profile.test_images
        if self.profile.data == "planted":
            # Two streams of one world: the features are the same, the images are not.
            return planted(PlantedWorld(), count, seed=1 if train else 2).to(self.device)
        return cifar10(train=train).subset(slice(0, count)).to(self.device)

    def _read_released(self, kind: str, root: Path) -> Dataset:
        if kind not in self._released:
            found = released(kind, root).subset(slice(0, self.profile.train_images)).to(self.device)
            # Hashing 50,000 images takes a second, and every recipe of a network trained on them asks for it.
            self._released[kind] = found.replace(info={**found.info, "fingerprint": found.fingerprint()})
        return self._released[kind]

    def _watch(self, model: Classifier) -> dict[str, float]:
        """Accuracy on some test images, ordinary and attacked at the radius of adversarial training."""
        unseen = self.test_set.subset(slice(0, self.profile.watch_images))
        threat = self.profile.robust.threat or L2(0)
        attacked = robust_accuracy(model, unseen, threat, steps=self.profile.watch_steps)
        return {"test_accuracy": accuracy(model, unseen).value, "robust_test_accuracy": attacked.value}

    def _trained(
        self,
        data: Callable[[], Dataset],
        recipe: Recipe,
        config: TrainConfig,
        description: str,
        *,
        watch: Callable[[Classifier], dict[str, float]] | None = None,
    ) -> Trained:
        def fit(model: Classifier, checkpoint: Checkpoint) -> list[dict[str, float]]:
            dataset = data()
            whiten(model, dataset.images)
            keep: dict[str, Any] = {"checkpoint": checkpoint, "evaluate": watch, "description": description}
            return train(model, dataset, config, seed=seed, **keep)

        seed, network = recipe["seed"], recipe["network"]
        weights, classes = recipe.get("weights", seed), self.train_set.num_classes
        fresh = build_model(**network, seed=weights, classes=classes).to(self.device)
        model, history = self.store.model(recipe, fresh, fit)
        self.provenance |= resumed_elsewhere(history)
        return Trained(model, history, recipe)

    def _model_recipe(
        self, data: Recipe, config: TrainConfig, seed: int, *, width: int | None = None, architecture: str | None = None
    ) -> dict[str, Any]:
        network = {"name": self.profile.network, "width": width or self.profile.width}
        if architecture is not None:
            scales = self.profile.architectures
            if architecture not in scales:
                raise ValueError(f"unknown architecture {architecture!r}; there are {', '.join(sorted(scales))}")
            network = {"name": architecture, **_plain(scales[architecture])}
        return {"network": network, "data": data, "train": _plain(config), "seed": seed}

    def _ordinary_recipe(self, seed: int, width: int, architecture: str | None) -> tuple[dict[str, Any], TrainConfig]:
        if architecture is None:
            config = self.profile.standard
            return self._model_recipe(self._data_recipe, config, seed, width=width), config
        config = self.profile.architecture_standard
        return self._model_recipe(self._data_recipe, config, seed, architecture=architecture), config

    def _source_recipe(self, seed: int, architecture: str | None) -> tuple[dict[str, Any], TrainConfig]:
        recipe, config = self._ordinary_recipe(seed, self.profile.source_width, architecture)
        if architecture is not None:
            recipe["weights"] = seed + 2 * _APART
        return recipe, config

    def _adversarial(self, config: TrainConfig, seed: int) -> Trained:
        recipe = self._model_recipe(self._data_recipe, config, seed)
        return self._trained(lambda: self.train_set, recipe, config, f"robust, {config.threat}", watch=self._watch)

    def _constructed_recipe(self, kind: str, source_seed: int, source: str | None = None) -> dict[str, Any]:
        if kind not in CONSTRUCTED:
            raise ValueError(f"kind must be one of {', '.join(CONSTRUCTED)}, got {kind!r}")
        if source is not None and kind not in ("D_rand", "D_det"):
            raise ValueError(f"another architecture can make D_rand or D_det, got kind={kind!r}")
        if self.released is not None:
            found = self._read_released(kind, self.released)
            return {"kind": kind, "released": found.info["fingerprint"]}
        # Gradients in bfloat16 give other images than gradients in float32.
        precision = str(kernels.fast_dtype(self.device.type))
        profile = self.profile
        if kind in ("D_R", "D_NR"):
            config = profile.matched_with if kind == "D_R" else profile.standard
            return {
                "kind": kind,
                "source": self._model_recipe(self._data_recipe, config, source_seed),
                "start": profile.match_start,
                "steps": profile.match_steps,
                "step_size": profile.match_step_size if kind == "D_R" else profile.nonrobust_step_size,
                "images": profile.match_images,
                "precision": precision,
            }
        return {
            "kind": kind,
            "source": self._source_recipe(source_seed, source)[0],
            "threat": _plain(L2(profile.eps)),
            "steps": profile.construct_steps,
            "step_size": profile.construct_step_size,
            "precision": precision,
        }

    def _begun(self, recipe: Recipe) -> Dataset | None:
        """The set of ``recipe`` with the most of the smaller numbers of steps that the store has, if it has any."""
        for steps in range(recipe["steps"] - 1, 0, -1):
            found = self.store.finished_dataset({**recipe, "steps": steps})
            if found is not None:
                return found.to(self.device)
        return None

    @cached_property
    def _data_recipe(self) -> dict[str, Any]:
        return {"fingerprint": self.train_set.fingerprint()}


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as JSON types; a threat as its ``key``, which names the norm."""
    if isinstance(value, Threat):
        return value.key
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
