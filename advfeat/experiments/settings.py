"""A profile: ten groups of numbers that set the scale of a run, each number with the values that it accepts.

Every number has two names: its place, as ``matching.steps``, and the one under which records know it and which may be
typed alone, as ``match_steps``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

from advfeat.experiments.datasets import DATASETS
from advfeat.experiments.setting_types import (
    Count,
    Counts,
    Group,
    ImagesOf,
    Length,
    Lengths,
    Numbered,
    Radii,
    TestImages,
    TrainImages,
    choice,
    hints,
    recorded_name,
)
from advfeat.hyperparameters import ADDED_LATER, TrainConfig, settings_of
from advfeat.networks import SMALL_NETWORKS
from advfeat.torchvision_networks import TORCHVISION, ArchitectureScale


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    """The images."""

    name: Annotated[str, choice(*DATASETS), "data"]
    """A name from ``datasets.DATASETS``."""
    train_images: Count
    """How many training images, from the first on."""
    test_images: Count
    """How many test images, from the first on."""
    held_out_from: Numbered = field(default=0, metadata=ADDED_LATER)
    """The number of the first training image that is held out, with as many after it as ``test_images``: they take the
    place of the test images, which whoever chooses settings must not see. 0: none is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.held_out_from < self.train_images:
            raise ValueError(f"held_out_from={self.held_out_from} must be train_images={self.train_images} or more")


@dataclass(frozen=True, kw_only=True)
class Network(Group):
    """The profile's own network."""

    name: Annotated[str, choice(*sorted({*SMALL_NETWORKS, *TORCHVISION})), "network"]
    """Name for ``models.build_model``."""
    width: Count
    """Channels of its first stage."""
    source_width: Count
    """The same for the ordinary network that D_rand and D_det are made with."""
    learner_width: Numbered = field(default=0, metadata=ADDED_LATER)
    """The same for the networks that learn from D_rand and D_det; 0: ``width``."""


@dataclass(frozen=True, kw_only=True)
class Training(Group):
    """How the profile's own network is trained, and on which images."""

    standard: TrainConfig
    """The ordinary network, also at the width of a source."""
    robust: TrainConfig
    """Adversarial training."""
    # Nothing is trained within a radius of 0.
    robust_eps: Lengths = (0.25, 0.5, 1.0)
    """Other radii of adversarial training that are compared."""
    overfit: TrainConfig
    """Adversarial training that goes on for too long."""
    overfit_images: TrainImages
    """Training images that it sees, from the first on."""
    on_matched: TrainConfig
    """On D_R and D_NR, and on the ordinary images that these are compared with."""
    on_rand: TrainConfig
    """On D_rand."""
    on_det: TrainConfig
    """On D_det."""


@dataclass(frozen=True, kw_only=True)
class Matching(Group):
    """D_R and D_NR, made by representation matching."""

    images: Annotated[TrainImages, "match_images"]
    """Images that they are made from, from the first training image on."""
    source: Annotated[TrainConfig, "match_source"]
    """Adversarial training of the network that D_R is made with."""
    eps: Annotated[Length, "match_eps"] = 0.5
    """Its ℓ2 radius; steps change to match."""
    steps: Annotated[Count, "match_steps"]
    """Steps per image."""
    step_size: Annotated[Length, "match_step_size"]
    """Their ℓ2 length for D_R, in pixel units."""
    nonrobust_step_size: Length
    """The same for D_NR, whose search has a shorter way to go."""
    start: Annotated[str, choice("other", "noise"), "match_start"] = "other"
    """Where they start: ``other`` (another image) or ``noise``."""
    sweep: Annotated[Counts, "match_sweep"]
    """Other numbers of steps, tried to see how many are enough."""
    sweep_images: TrainImages
    """Images of the sets in that trial, and of those that start from noise."""

    @property
    def robust_source(self) -> TrainConfig:
        """The adversarial training of the network that D_R is made with: ``source`` at ``eps``."""
        return self.source.at_radius(self.eps)


@dataclass(frozen=True, kw_only=True)
class Targeting(Group):
    """D_rand and D_det, made by a targeted attack."""

    eps: Annotated[Length, "eps"] = 0.5
    """ℓ2 radius, in pixel units."""
    steps: Annotated[Count, "construct_steps"] = 20
    """PGD steps per image."""
    step_size: Annotated[Length, "construct_step_size"] = 0.1
    """Their length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size > 2 * self.eps:
            raise ValueError(f"construct_step_size={self.step_size} must be at most twice eps={self.eps}")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Group):
    """How robust accuracy is measured."""

    eps: Annotated[Radii, "eval_eps"] = (0.0, 0.1, 0.25, 0.5)
    """ℓ2 radii at which it is measured."""
    steps: Annotated[Count, "eval_steps"] = 20
    """PGD steps."""
    images: Annotated[TestImages, "eval_images"] = 1000
    """Test images."""
    curve_eps: Radii = (0.0, 0.25, 0.5, 1.0, 2.0)
    """ℓ2 radii at which networks of different training are compared."""
    autoattack_eps: Radii = ()
    """ℓ2 radii at which AutoAttack checks a robust accuracy; none where it would take too long."""
    autoattack_images: TestImages = 1000
    """Test images in that check."""


@dataclass(frozen=True, kw_only=True)
class Watching(Group):
    """How a training run is watched after each epoch, at the radius of adversarial training."""

    images: Annotated[TestImages, "watch_images"] = 1000
    """Test images."""
    steps: Annotated[Count, "watch_steps"] = 5
    """PGD steps."""


@dataclass(frozen=True, kw_only=True)
class Features(Group):
    """How useful features are, and how robust."""

    truth_images: Count = 5000
    """Images of the planted world on which features are compared with the planted truth."""
    images: Annotated[TestImages, "feature_images"] = 500
    """Test images, equally many of each class, on which the units of a network are attacked."""
    steps: Annotated[Count, "feature_steps"] = 8
    """PGD steps of that attack, down and up, per unit and image."""


@dataclass(frozen=True, kw_only=True)
class Inversion(Group):
    """The image that a representation remembers: inversion, interpolation, units."""

    images: Annotated[TestImages, "represent_images"] = 200
    """Test images that are inverted, pairs that are interpolated and units that are shown."""
    steps: Annotated[Count, "represent_steps"] = 200
    """Steps of each of these searches."""
    step_size: Annotated[Length, "represent_step_size"] = 0.2
    """Their ℓ2 length, in pixel units."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings(Group):
    """Other networks, and adversarial images that go from one to another."""

    architectures: Mapping[str, ArchitectureScale]
    """Name → scale of the networks that are compared with the profile's own."""
    standard: Annotated[TrainConfig, "architecture_standard"]
    """Their training on the ordinary images."""
    det: Annotated[TrainConfig, "architecture_det"]
    """Their training on D_det."""
    images: Annotated[TestImages, "transfer_images"] = 1000
    """Test images."""
    source: Annotated[str, choice("", *sorted(TORCHVISION)), "transfer_source"] = "resnet50"
    """Which of the ``architectures`` makes them, and D_det for the others; empty: the usual source."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The scale of a run: a name as given to a chapter, one line for run cards and lists, and ten groups.

    Raises:
        ValueError: settings count more images than ``data`` has, named. They would be cut off without a word, and a
            record would hold a number of images that nobody has seen.
    """

    name: str
    description: str
    data: Data
    network: Network
    training: Training
    matching: Matching
    targeting: Targeting = Targeting()
    evaluation: Evaluation = Evaluation()
    watching: Watching = Watching()
    features: Features = Features()
    inversion: Inversion = Inversion()
    transfer: TransferSettings

    def __post_init__(self) -> None:
        for most in ("train_images", "test_images"):
            there = getattr(self.data, most)
            counts = {name: getattr(getattr(self, group), place) for name, (group, place) in counting(most).items()}
            if over := [f"{name}={count}" for name, count in counts.items() if count > there]:
                raise ValueError(f"{', '.join(over)} must be at most {most}={there}")

    def on(self, device_type: str) -> Profile:
        """The same with every training in a precision by its name, see ``TrainConfig.on``."""

        groups: dict[str, Any] = {}
        for name in GROUPS:
            group = getattr(self, name)
            trainings = {place: one for place, one in vars(group).items() if isinstance(one, TrainConfig)}
            here = {place: one.on(device_type) for place, one in trainings.items()}
            groups[name] = dataclasses.replace(group, **here)
        return dataclasses.replace(self, **groups)

    def recorded(self) -> dict[str, Any]:
        """Every setting by the name that records know it by, but for those added later that have their default."""
        groups = {group: settings_of(getattr(self, group)) for group in GROUPS}
        found = {name: groups[group][place] for name, (group, place) in PLACES.items() if place in groups[group]}
        return {"name": self.name, "description": self.description, **found}


GROUPS: dict[str, type[Group]] = {
    name: hint for name, hint in get_type_hints(Profile).items() if isinstance(hint, type) and issubclass(hint, Group)
}
"""Name → class of the groups of a profile."""

PLACES = {recorded_name(kind, place): (group, place) for group, kind in GROUPS.items() for place in hints(kind)}
"""The name of a setting in records → its group and its name there."""


def counting(most: str) -> dict[str, tuple[str, str]]:
    """The settings, of those in ``PLACES``, that count images out of ``train_images`` or ``test_images``."""
    return {
        name: (group, place)
        for name, (group, place) in PLACES.items()
        if ImagesOf(most) in getattr(hints(GROUPS[group])[place], "__metadata__", ())
    }
