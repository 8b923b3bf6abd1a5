"""One run of the experiments: a profile, a seed and a device, and everything that chapters share at that scale.

Whatever is trained or constructed here goes through the store, so a chapter finds what another one has made, or makes
it itself: chapters can be run in any order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from advfeat import kernels, records
from advfeat.attacks import L2, Threat
from advfeat.construct import deterministic_target_dataset, nonrobust_dataset, random_target_dataset, robust_dataset
from advfeat.data import Dataset, cifar10
from advfeat.models import Classifier, build_model, whiten
from advfeat.planted import PlantedWorld, planted
from advfeat.profiles import Profile, get_profile
from advfeat.store import Recipe, Shards, Store
from advfeat.train import Checkpoint, TrainConfig, train

CONSTRUCTED = ("D_R", "D_NR", "D_rand", "D_det")


@dataclass(frozen=True)
class Trained:
    """A model, its training history (one row per epoch) and the recipe that identifies it."""

    model: Classifier
    history: list[dict[str, float]]
    recipe: Recipe

    @property
    def network(self) -> str:
        """Its architecture, in words."""
        return "{name}, width {width}".format_map(self.recipe["network"])

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

    Raises:
        ValueError: unknown profile, override or device.
    """

    def __init__(self, profile: str, *, device: str = "auto", overrides: Mapping[str, object] | None = None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but PyTorch sees no GPU; use auto or cpu")
        self.profile: Profile = get_profile(profile, overrides)
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
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

    def standard(self, *, seed: int) -> Trained:
        """The network trained on the ordinary images."""
        recipe = self._standard_recipe(seed)
        return self._trained(lambda: self.train_set, recipe, self.profile.standard, "standard")

    def robust(self, *, seed: int) -> Trained:
        """The network trained on adversarial images."""
        recipe = self._robust_recipe(seed)
        return self._trained(lambda: self.train_set, recipe, self.profile.robust, "robust")

    def constructed(self, kind: str, *, source_seed: int) -> Dataset:
        """A dataset made with the network of ``source_seed``, the robust one for D_R, else the standard one.

        That seed also draws what is random: the targets of D_rand, and where the search for D_R and D_NR starts.

        Args:
            kind: ``D_R`` or ``D_NR`` (representation matching), ``D_rand`` or ``D_det`` (targeted attack).

        Raises:
            ValueError: another ``kind``.
        """
        recipe = self._constructed_recipe(kind, source_seed)
        profile = self.profile

        def build(shards: Shards) -> Dataset:
            source = (self.robust if kind == "D_R" else self.standard)(seed=source_seed).model
            attack: dict[str, Any] = {
                "steps": profile.construct_steps,
                "step_size": profile.construct_step_size,
                "shards": shards,
            }
            match: dict[str, Any] = {
                "steps": profile.match_steps,
                "step_size": profile.match_step_size,
                "start": profile.match_start,
                "seed": source_seed,
                "shards": shards,
            }
            if kind == "D_R":
                return robust_dataset(source, self.train_set, **match)
            if kind == "D_NR":
                return nonrobust_dataset(source, self.train_set, **match)
            if kind == "D_rand":
                return random_target_dataset(source, self.train_set, L2(profile.eps), seed=source_seed, **attack)
            return deterministic_target_dataset(source, self.train_set, L2(profile.eps), **attack)

        return self.store.dataset(recipe, build).to(self.device)

    def trained_on(self, kind: str, *, source_seed: int, seed: int) -> Trained:
        """A fresh network of ``seed`` trained on the constructed dataset of ``source_seed``, see ``constructed``."""
        data = self._constructed_recipe(kind, source_seed)
        profile = self.profile
        config = {
            "D_R": profile.on_robust, "D_NR": profile.on_nonrobust, "D_rand": profile.on_rand, "D_det": profile.on_det
        }[kind]  # fmt: skip
        recipe = self._model_recipe(data, config, seed, width=profile.learner_width)
        return self._trained(lambda: self.constructed(kind, source_seed=source_seed), recipe, config, kind)

    def describe(self) -> dict[str, Any]:
        """The profile's every setting and the device, in JSON types, for records."""
        return {**_plain(self.profile), "device": self.device.type}

    def _load(self, *, train: bool) -> Dataset:
        count = self.profile.train_images if train else self.profile.test_images
        if self.profile.data == "planted":
            # Two streams of one world: the features are the same, the images are not.
            return planted(PlantedWorld(), count, seed=1 if train else 2).to(self.device)
        return cifar10(train=train).subset(slice(0, count)).to(self.device)

    def _trained(self, data: Callable[[], Dataset], recipe: Recipe, config: TrainConfig, description: str) -> Trained:
        def fit(model: Classifier, checkpoint: Checkpoint) -> list[dict[str, float]]:
            dataset = data()
            whiten(model, dataset.images)
            return train(model, dataset, config, seed=seed, checkpoint=checkpoint, description=description)

        seed = recipe["seed"]
        network = recipe["network"]
        fresh = build_model(**network, seed=seed, classes=self.train_set.num_classes).to(self.device)
        model, history = self.store.model(recipe, fresh, fit)
        return Trained(model, history, recipe)

    def _model_recipe(
        self, data: Recipe, config: TrainConfig, seed: int, *, width: int | None = None
    ) -> dict[str, Any]:
        network = {"name": self.profile.network, "width": width or self.profile.width}
        return {"network": network, "data": data, "train": _plain(config), "seed": seed}

    def _standard_recipe(self, seed: int) -> dict[str, Any]:
        return self._model_recipe(self._data_recipe, self.profile.standard, seed)

    def _robust_recipe(self, seed: int) -> dict[str, Any]:
        return self._model_recipe(self._data_recipe, self.profile.robust, seed)

    def _constructed_recipe(self, kind: str, source_seed: int) -> dict[str, Any]:
        if kind not in CONSTRUCTED:
            raise ValueError(f"kind must be one of {', '.join(CONSTRUCTED)}, got {kind!r}")
        # Gradients in bfloat16 give other images than gradients in float32.
        precision = str(kernels.fast_dtype(self.device.type))
        profile = self.profile
        if kind in ("D_R", "D_NR"):
            source = self._robust_recipe(source_seed) if kind == "D_R" else self._standard_recipe(source_seed)
            return {
                "kind": kind,
                "source": source,
                "start": profile.match_start,
                "steps": profile.match_steps,
                "step_size": profile.match_step_size,
                "precision": precision,
            }
        return {
            "kind": kind,
            "source": self._standard_recipe(source_seed),
            "threat": str(L2(profile.eps)),
            "steps": profile.construct_steps,
            "step_size": profile.construct_step_size,
            "precision": precision,
        }

    @cached_property
    def _data_recipe(self) -> dict[str, Any]:
        return {"fingerprint": self.train_set.fingerprint()}


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON types; a threat as its own words, which name the norm."""
    if isinstance(value, Threat):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
