"""Every number that sets the scale of a run, in one table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from advfeat.attacks import L2
from advfeat.datasets import DATASETS
from advfeat.networks import OWN, TORCHVISION, Scale
from advfeat.train import TrainConfig


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_radius(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _is_length(value: Any) -> bool:
    return _is_radius(value) and value > 0


def _all(accepted: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: all(map(accepted, values))


def _choice(*names: str) -> tuple[Callable[[Any], bool], str]:
    return names.__contains__, f"one of {', '.join(names)}"


# What a field of a profile accepts, by its name or else by its type, and that in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "data": _choice(*DATASETS),
    "network": _choice(*sorted({*OWN, *TORCHVISION})),
    "match_start": _choice("other", "noise"),
    "transfer_source": _choice("", *sorted(TORCHVISION)),
    # Nothing is trained within a radius of 0; to measure there is to measure the plain accuracy.
    "robust_eps": (_all(_is_length), "positive numbers"),
    "int": (_is_count, "a whole number, 1 or more"),
    "float": (_is_length, "a positive number"),
    "tuple[int, ...]": (_all(_is_count), "whole numbers, each 1 or more"),
    "tuple[float, ...]": (_all(_is_radius), "numbers, each 0 or more"),
}


@dataclass(frozen=True)
class Profile:
    """The scale of a run.

    Attributes:
        name: as given to a chapter.
        description: one line for run cards and lists.
        data: a name from ``datasets.DATASETS``.
        train_images: how many training images, from the first on.
        test_images: how many test images, from the first on.
        network: name for ``models.build_model``.
        width: channels of its first stage.
        source_width: the same for the ordinary network that D_rand and D_det are made with.
        standard: training of the ordinary network, also at the width of a source.
        robust: adversarial training.
        robust_eps: other radii of adversarial training that are compared.
        overfit: adversarial training that goes on for too long.
        overfit_images: training images that it sees, from the first on.
        on_matched: training on D_R and D_NR, and on the ordinary images that these are compared with.
        on_rand: training on D_rand.
        on_det: training on D_det.
        match_images: images that D_R and D_NR are made from, from the first training image on.
        match_source: adversarial training of the network that D_R is made with.
        match_eps: its ℓ2 radius; steps change to match.
        match_steps: steps of representation matching per image of D_R and D_NR.
        match_step_size: their ℓ2 length for D_R, in pixel units.
        nonrobust_step_size: the same for D_NR, whose search has a shorter way to go.
        match_start: where they start, ``other`` (another image) or ``noise``.
        match_sweep: other numbers of steps, tried to see how many are enough.
        sweep_images: images of the sets in that trial, and of those that start from noise.
        eps: ℓ2 radius of D_rand and D_det, in pixel units.
        construct_steps: PGD steps per image of D_rand and D_det.
        construct_step_size: their length.
        eval_eps: ℓ2 radii at which robust accuracy is measured.
        eval_steps: PGD steps of that measurement.
        eval_images: test images in it.
        watch_images: test images on which a training run is watched after each epoch.
        watch_steps: PGD steps of that, at the radius of adversarial training.
        curve_eps: ℓ2 radii at which networks of different training are compared.
        autoattack_eps: ℓ2 radii at which AutoAttack checks a robust accuracy; none where it would take too long.
        autoattack_images: test images in that check.
        truth_images: images of the planted world on which features are compared with the planted truth.
        feature_images: test images, equally many of each class, on which the units of a network are attacked.
        feature_steps: PGD steps of that attack, down and up, per unit and image.
        represent_images: test images that are inverted, pairs that are interpolated and units that are shown.
        represent_steps: steps of each of these searches.
        represent_step_size: their ℓ2 length, in pixel units.
        architectures: name → scale of the other networks that are compared with the profile's own.
        architecture_standard: their training on the ordinary images.
        architecture_det: their training on D_det.
        transfer_images: test images on which adversarial images go from network to network.
        transfer_source: which of the ``architectures`` makes them, and D_det for the others; empty: the usual source.

    Raises:
        ValueError: a value outside its range, named: chapters would meet it late, or cut off the wrong images.
    """

    name: str
    description: str
    data: str
    train_images: int
    test_images: int
    network: str
    width: int
    source_width: int
    standard: TrainConfig
    robust: TrainConfig
    overfit: TrainConfig
    overfit_images: int
    match_source: TrainConfig
    on_matched: TrainConfig
    on_rand: TrainConfig
    on_det: TrainConfig
    match_images: int
    match_steps: int
    match_step_size: float
    nonrobust_step_size: float
    match_sweep: tuple[int, ...]
    sweep_images: int
    architectures: Mapping[str, Scale]
    architecture_standard: TrainConfig
    architecture_det: TrainConfig
    match_start: str = "other"
    match_eps: float = 0.5
    robust_eps: tuple[float, ...] = (0.25, 0.5, 1.0)
    eps: float = 0.5
    construct_steps: int = 20
    construct_step_size: float = 0.1
    eval_eps: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5)
    eval_steps: int = 20
    eval_images: int = 1000
    watch_images: int = 1000
    watch_steps: int = 5
    curve_eps: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0)
    autoattack_eps: tuple[float, ...] = ()
    autoattack_images: int = 1000
    truth_images: int = 5000
    feature_images: int = 500
    feature_steps: int = 8
    represent_images: int = 200
    represent_steps: int = 200
    represent_step_size: float = 0.2
    transfer_images: int = 1000
    transfer_source: str = "resnet50"

    @property
    def matched_with(self) -> TrainConfig:
        """The adversarial training of the network that D_R is made with: ``match_source`` at ``match_eps``."""
        return self.match_source.at_radius(self.match_eps)

    def on(self, device_type: str) -> Profile:
        """The same with every training in a precision by its name, see ``TrainConfig.on``."""
        trainings: dict[str, Any] = {name: item for name, item in vars(self).items() if isinstance(item, TrainConfig)}
        return dataclasses.replace(self, **{name: item.on(device_type) for name, item in trainings.items()})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            accepted, words = _ACCEPTED.get(field.name) or _ACCEPTED.get(str(field.type)) or (None, "")
            value = getattr(self, field.name)
            if accepted and not accepted(value):
                raise ValueError(f"{field.name}={value!r} must be {words}")
        if self.construct_step_size > 2 * self.eps:
            raise ValueError(f"construct_step_size={self.construct_step_size} must be at most twice eps={self.eps}")


_PLANTED = TrainConfig(epochs=7, batch_size=100, lr=0.1)
_PLANTED_ADVERSARIAL = dataclasses.replace(_PLANTED, threat=L2(0.5), attack_steps=2, attack_step_size=0.3)
_PLANTED_ARCHITECTURES = TrainConfig(epochs=3, batch_size=100, lr=0.25, weight_decay=5e-3)
_CIFAR = TrainConfig(epochs=12, batch_size=250, lr=0.2, shift=2, flip=True, precision="fast")
_CPU = dataclasses.replace(_CIFAR, epochs=14, shift=3, weight_decay=1e-3)
_ADVERSARIAL = dataclasses.replace(
    _CIFAR, batch_size=125, lr=0.1, threat=L2(0.5), attack_steps=2, attack_step_size=0.3, attack_mode="train"
)
# 13 to 24 million multiply-adds each, about as many as resnet9 at half its width. Whitened: in trials a ResNet-18 on
# plain patches was fooled by 4 % of the source's images, not by 25 %, and its accuracy after D_det was 2 %, not 14 %.
_CPU_ARCHITECTURES = {
    "resnet50": Scale(12, depth=1, whitened=True),
    "inception_v3": Scale(8, depth=1, whitened=True),
    "resnet18": Scale(16, depth=1, whitened=True),
    "densenet": Scale(16, depth=2, whitened=True),
    "vgg16": Scale(16, whitened=True),
}
_GPU = TrainConfig(epochs=40, batch_size=250, lr=0.2, shift=4, flip=True, precision="bfloat16")

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="planted",
            description="the planted world: synthetic images with known features, seconds on a CPU",
            data="planted",
            train_images=4000,
            test_images=1000,
            network="cnn4",
            width=32,
            source_width=32,
            standard=_PLANTED,
            # As long as the standard one, so that nothing but the adversary tells them apart.
            robust=_PLANTED_ADVERSARIAL,
            robust_eps=(0.5, 2.5),
            overfit=dataclasses.replace(_PLANTED_ADVERSARIAL, epochs=20, batch_size=50),
            overfit_images=400,
            # Few updates: the longer it trains, the more of the textures comes back into what it represents.
            match_source=dataclasses.replace(_PLANTED_ADVERSARIAL, epochs=3, batch_size=200, lr=0.3),
            # Long enough to learn the textures where there are any, and too short to learn single images by heart.
            on_matched=dataclasses.replace(_PLANTED, epochs=5, batch_size=50, weight_decay=1e-2),
            on_rand=dataclasses.replace(_PLANTED, lr=0.2, weight_decay=5e-3),
            on_det=dataclasses.replace(_PLANTED, lr=0.2, weight_decay=5e-3),
            match_images=3000,
            match_eps=2.5,
            match_steps=15,
            match_step_size=2.4,
            nonrobust_step_size=0.6,
            match_sweep=(3, 30),
            sweep_images=1000,
            # One block a stage on patches of 4×4, at widths of about the same cost. Without the boost all five learn
            # the shapes alone in so short a training.
            architectures={
                "resnet50": Scale(12, depth=1, patch=4, boost=32.0),
                "inception_v3": Scale(8, depth=1, patch=4, boost=32.0),
                "resnet18": Scale(16, depth=1, patch=4, boost=32.0),
                "densenet": Scale(16, depth=2, patch=4, boost=32.0),
                "vgg16": Scale(16, depth=1, patch=4, boost=32.0),
            },
            architecture_standard=_PLANTED_ARCHITECTURES,
            architecture_det=dataclasses.replace(_PLANTED_ARCHITECTURES, epochs=2),
            construct_steps=10,
            eval_images=300,
            watch_images=200,
            feature_images=100,
            feature_steps=3,
            represent_images=50,
            represent_steps=60,
            represent_step_size=0.35,
            transfer_images=200,
            transfer_source="",
        ),
        Profile(
            name="cifar10-small",
            description="the first 10,000 images of CIFAR-10 and a narrow network, minutes on two cores",
            data="cifar10",
            train_images=10_000,
            test_images=2_000,
            network="resnet9",
            width=32,
            source_width=32,
            standard=dataclasses.replace(_CIFAR, epochs=10),
            robust=dataclasses.replace(_ADVERSARIAL, epochs=6),
            overfit=dataclasses.replace(_ADVERSARIAL, epochs=40),
            overfit_images=2000,
            match_source=dataclasses.replace(_ADVERSARIAL, epochs=6),
            on_matched=dataclasses.replace(_CIFAR, epochs=16),
            on_rand=dataclasses.replace(_CIFAR, epochs=16, weight_decay=5e-3),
            on_det=dataclasses.replace(_CIFAR, epochs=16, weight_decay=5e-3),
            match_images=10_000,
            match_steps=100,
            match_step_size=0.1,
            nonrobust_step_size=0.1,
            match_sweep=(12, 35),
            sweep_images=10_000,
            architectures=_CPU_ARCHITECTURES,
            architecture_standard=dataclasses.replace(_CIFAR, lr=0.1),
            architecture_det=dataclasses.replace(_CIFAR, lr=0.1, weight_decay=5e-3),
            construct_steps=12,
            eval_images=500,
            watch_images=500,
            autoattack_eps=(0.25,),
            autoattack_images=200,
        ),
        Profile(
            name="cifar10-cpu",
            description="all of CIFAR-10 and a small network, hours on two cores",
            data="cifar10",
            train_images=50_000,
            test_images=10_000,
            network="resnet9",
            width=32,
            source_width=64,
            standard=_CPU,
            # The fewest steps that hold. In trials 53 % of the images soon withstood a single step, though it began at
            # a random point, and 10 % withstood ten; with two steps and BatchNorm in eval mode it was 54 % and, against
            # twenty, 21 %. In both cases the network had learned to hide its gradients.
            robust=dataclasses.replace(_ADVERSARIAL, epochs=12),
            overfit=dataclasses.replace(_ADVERSARIAL, epochs=40),
            overfit_images=5000,
            match_source=dataclasses.replace(_ADVERSARIAL, epochs=12),
            on_matched=_CPU,
            on_rand=dataclasses.replace(_CIFAR, epochs=12, weight_decay=5e-3),
            on_det=dataclasses.replace(_CIFAR, epochs=12, weight_decay=5e-3),
            match_images=50_000,
            match_steps=40,
            match_step_size=0.3,
            nonrobust_step_size=0.1,
            match_sweep=(10, 20, 80, 160),
            sweep_images=10_000,
            architectures=_CPU_ARCHITECTURES,
            architecture_standard=dataclasses.replace(_CIFAR, epochs=6, lr=0.1),
            architecture_det=dataclasses.replace(_CIFAR, epochs=6, lr=0.1, weight_decay=5e-3),
            construct_steps=10,
            eval_images=10_000,
            # In a trial five steps made a robust unit fall 97 % as far as sixteen did, and a standard one 92 %.
            feature_images=250,
            feature_steps=5,
            autoattack_eps=(0.25,),
        ),
        Profile(
            name="cifar10-gpu",
            description="all of CIFAR-10, ResNet-18 and large budgets: minutes per stage on a large GPU",
            data="cifar10",
            train_images=50_000,
            test_images=10_000,
            network="resnet18",
            width=64,
            source_width=64,
            standard=_GPU,
            robust=dataclasses.replace(_GPU, threat=L2(0.5), attack_steps=7, attack_step_size=0.1),
            overfit=dataclasses.replace(_GPU, epochs=100, threat=L2(0.5), attack_steps=7, attack_step_size=0.1),
            overfit_images=50_000,
            match_source=dataclasses.replace(_GPU, threat=L2(0.5), attack_steps=7, attack_step_size=0.1),
            on_matched=_GPU,
            # Replications that learn anything from D_rand with this network use a low rate; D_det is reported to need
            # its images as they are.
            on_rand=dataclasses.replace(_GPU, lr=0.02),
            on_det=dataclasses.replace(_GPU, shift=0, flip=False),
            match_images=50_000,
            match_steps=1000,
            match_step_size=0.1,
            nonrobust_step_size=0.1,
            match_sweep=(30, 100, 300),
            sweep_images=50_000,
            architectures={name: Scale() for name in TORCHVISION},
            architecture_standard=dataclasses.replace(_GPU, lr=0.1),
            architecture_det=dataclasses.replace(_GPU, lr=0.1, shift=0, flip=False),
            construct_steps=100,
            eval_steps=50,
            eval_images=10_000,
            autoattack_eps=(0.25, 0.5),
        ),
    )
}


def get_profile(name: str, overrides: Mapping[str, object] | None = None) -> Profile:
    """The profile called ``name``, with some of its numbers replaced.

    ``overrides`` mirrors the fields; a mapping reaches into a training configuration:
    ``{"eps": 0.25, "standard": {"epochs": 3}}``, and into the scale of an architecture.

    Raises:
        ValueError: unknown profile or field, with the list of what exists; a value outside its range; an architecture
            with anything but a mapping.
        TypeError: a value of another type than the one it replaces.
    """
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; there are {', '.join(PROFILES)}")
    return _replace(PROFILES[name], dict(overrides or {}), "profile")


def _replace(config: Any, changes: Mapping[str, Any], where: str) -> Any:
    types = {field.name: field.type for field in dataclasses.fields(config)}
    known = types.keys() - {"name", "description", "data"}
    fresh: dict[str, object] = {}
    for key, value in changes.items():
        if key not in known:
            raise ValueError(f"unknown override {key!r} in {where}; there are {', '.join(sorted(known))}")
        old = getattr(config, key)
        if dataclasses.is_dataclass(old) and isinstance(value, Mapping):
            fresh[key] = _replace(old, value, key)
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            if unknown := value.keys() - old.keys():
                raise ValueError(f"unknown override {min(unknown)!r} in {key}; there are {', '.join(sorted(old))}")
            for name, scale in value.items():
                if not isinstance(scale, Mapping):
                    raise ValueError(f"override {name!r} in {key} must be like {{'width': 16}}, got {scale!r}")
            fresh[key] = {**old, **{name: _replace(old[name], changes, name) for name, changes in value.items()}}
        elif isinstance(old, tuple) and isinstance(value, list | tuple) and all(map(_is_number, value)):
            whole = old and all(isinstance(item, int) for item in (*old, *value))
            fresh[key] = tuple(int(item) if whole else float(item) for item in value)
        elif isinstance(old, float) and _is_number(value):
            fresh[key] = float(value)
        elif type(old) is type(value) or (types[key] == "int | None" and (value is None or type(value) is int)):
            fresh[key] = value
        else:
            raise TypeError(f"override {key!r} in {where} must be like {old!r}, got {value!r}")
    return dataclasses.replace(config, **fresh)
