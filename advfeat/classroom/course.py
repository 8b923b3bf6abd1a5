"""The basis of the problem sets: the world of a class, its images and its networks."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from advfeat.data import Dataset
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.store import Store
from advfeat.gaussian import Gaussians
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, build_model
from advfeat.planted import PlantedWorld, planted
from advfeat.train import Checkpoint, train

NETWORKS = ("standard", "robust")


class NotHere(RuntimeError):
    """A function of the library was called in a problem set that asks for exactly that function."""


def class_world(class_seed: int) -> PlantedWorld:
    """The planted world of a class: the book's own for 0, another one for every other seed.

    Worlds differ in the texture of each class, in the norm of the textures, and in how often shape and texture are
    those of the label, so that the measurements of students differ from class to class.

    Raises:
        ValueError: ``class_seed`` is not an integer in [0, 2**32).
    """
    world = PlantedWorld(seed=class_seed)
    if class_seed == 0:
        return world
    generator = torch.Generator().manual_seed(class_seed)
    shape, texture, length = (int(torch.randint(steps, (), generator=generator)) for steps in (9, 7, 7))
    return dataclasses.replace(
        world,
        shape_reliability=round(0.85 + 0.01 * shape, 2),
        texture_reliability=round(0.965 + 0.005 * texture, 3),
        texture_norm=round(0.24 + 0.02 * length, 2),
    )


class Course:
    """One class: its world, images drawn from it, and networks trained on them.

    Args:
        class_seed: the class; see ``class_world``.
        yours: functions of the library that students write themselves, such as ``"attacks.pgd"``. From now on a
            notebook that calls one of them gets ``NotHere``; the library itself can still use them.

    Raises:
        ValueError: ``class_seed`` is out of range, or a name in ``yours`` is not of the form ``"module.name"``.
    """

    def __init__(self, *, class_seed: int, yours: Sequence[str] = ()) -> None:
        self.class_seed = class_seed
        self.world = class_world(class_seed)
        for name in yours:
            _switch_off(name)

    def __repr__(self) -> str:
        return f"the planted world of class {self.class_seed}"

    @cached_property
    def train_set(self) -> Dataset:
        """4,000 images to learn from."""
        return self.images(get_profile("planted").data.train_images, seed=1)

    @cached_property
    def test_set(self) -> Dataset:
        """1,000 images to test on."""
        return self.images(get_profile("planted").data.test_images, seed=2)

    def images(self, n: int, *, seed: int) -> Dataset:
        """``n`` fresh images of the class's world; seeds 1 and 2 begin with the training and the test images."""
        return planted(self.world, n, seed=seed)

    @cached_property
    def gaussians(self) -> Gaussians:
        """Two Gaussian classes in six dimensions; the largest standard deviation is twenty times the smallest."""
        generator = torch.Generator().manual_seed(self.class_seed)
        basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
        deviations = torch.logspace(-1, 0.3, 6, dtype=torch.float64)
        share = 0.3 + 0.7 * torch.rand(6, generator=generator, dtype=torch.float64)
        covariance = (basis * deviations.square()) @ basis.T
        return Gaussians(basis @ (share * deviations), (covariance + covariance.T) / 2)

    def network(self, kind: str) -> Classifier:
        """A network trained on ``train_set``, in eval mode: ``"standard"``, or ``"robust"`` (adversarially, ℓ2, 2).

        The network is trained once, in a quarter of a minute; afterwards it comes from the store.

        Raises:
            ValueError: another ``kind``.
        """
        if kind not in NETWORKS:
            raise ValueError(f"kind must be one of {', '.join(NETWORKS)}, got {kind!r}")
        profile = get_profile("planted")
        config = profile.training.standard if kind == "standard" else profile.matching.robust_source
        world = {"world": dataclasses.asdict(self.world)}
        return self._trained(world, lambda: self.train_set, config, profile.network.width, seed=0)

    def learn(self, images: Float[Tensor, "n 3 32 32"], labels: Int[Tensor, " n"]) -> Classifier:
        """A fresh, narrow network trained on ``images`` in [0, 1] with ``labels`` in the ordinary way, in eval mode."""
        config = dataclasses.replace(get_profile("planted").training.on_det, epochs=8, batch_size=50)
        dataset = self.train_set.replace(images=images, labels=labels, truth={}, info={}, name="yours")
        return self._trained({"images": dataset.fingerprint()}, lambda: dataset, config, 16, seed=1)

    def _trained(
        self, seen: dict[str, Any], images: Callable[[], Dataset], config: TrainConfig, width: int, *, seed: int
    ) -> Classifier:
        """A network from the store, or trained for it; ``seen`` names its training data."""
        network = get_profile("planted").network.name

        def fit(model: Classifier, checkpoint: Checkpoint) -> list[dict[str, float]]:
            return train(model, images(), config, seed=seed, checkpoint=checkpoint, description="class network")

        recipe = {"network": {"name": network, "width": width}, **seen, "train": repr(config), "seed": seed}
        return Store().model(recipe, build_model(network, width=width, seed=seed), fit)[0]


def _switch_off(name: str) -> None:
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(f"yours must name functions as 'module.name', got {name!r}")
    module = importlib.import_module(f"advfeat.{module_name}")
    setattr(module, attribute, _stand_in(getattr(module, attribute), name))


def _stand_in(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``function`` for callers inside the library, a refusal for a notebook."""
    original = getattr(function, "__wrapped__", function)

    def stand_in(*arguments: Any, **named: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__", "").startswith("advfeat."):
            return original(*arguments, **named)
        raise NotHere(f"advfeat.{name} is what this problem set asks you to write, so it is switched off here")

    stand_in.__wrapped__ = original  # type: ignore[attr-defined]
    return stand_in
