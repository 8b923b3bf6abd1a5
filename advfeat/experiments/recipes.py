"""Recipes: frozen values that identify everything that is trained or constructed.

``key_parts`` is the form of a recipe in JSON types. The store keeps things under it, so it never changes for a thing
that exists. A maker takes all that it needs from the recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advfeat import inputs
from advfeat.hyperparameters import TrainConfig, settings_of
from advfeat.threats import Threat
from advfeat.torchvision_networks import ArchitectureScale

MATCHED = ("D_R", "D_NR")
TARGETED = ("D_rand", "D_det")
CONSTRUCTED = MATCHED + TARGETED


@dataclass(frozen=True)
class ImagesRecipe:
    """Ordinary training images.

    Attributes:
        fingerprint: of the whole training set, see ``data.Dataset.fingerprint``.
        images: how many of them, from the first on; None for all.
        classes: the classes, by their numbers, whose images alone are kept of these; None for all.
    """

    fingerprint: str
    images: int | None = None
    classes: tuple[int, ...] | None = None

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types; what is not restricted is not named."""
        parts: dict[str, Any] = {"fingerprint": self.fingerprint}
        parts |= {} if self.images is None else {"images": self.images}
        return parts | ({} if self.classes is None else {"classes": list(self.classes)})


@dataclass(frozen=True)
class NetworkRecipe:
    """A trained network.

    Attributes:
        architecture: name for ``models.build_model``.
        scale: its width, if that alone is scaled, or everything that is kept of a network of torchvision's.
        data: the recipe of its training set.
        training: every number of the training.
        seed: draws the order of the images, and the shifts and flips.
        init_seed: draws the first weights.
    """

    architecture: str
    scale: int | ArchitectureScale
    data: ImagesRecipe | ConstructedRecipe
    training: TrainConfig
    seed: int
    init_seed: int

    @property
    def network(self) -> dict[str, Any]:
        """The arguments that ``models.build_model`` builds the network with, besides seed and classes."""
        scale = {"width": self.scale} if isinstance(self.scale, int) else dataclasses.asdict(self.scale)
        return {"name": self.architecture, **scale}

    @property
    def watched(self) -> bool:
        """Whether test accuracies are measured after every epoch: of the profile's own network on ordinary images.

        Not where it sees some of the classes only, since the test images are of all.
        """
        return isinstance(self.data, ImagesRecipe) and self.data.classes is None and isinstance(self.scale, int)

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types; ``weights`` is the seed of the first weights, where it is another one."""
        parts = {"network": self.network, "data": self.data.key_parts(), "train": plain(self.training)}
        return {**parts, "seed": self.seed, **({} if self.init_seed == self.seed else {"weights": self.init_seed})}

    def words(self) -> str:
        """The architecture and its scale, as in ``resnet18, width 16, depth 1, whitened``."""
        network = self.network
        words = [network["name"], f"width {network['width']}"]
        words += [f"depth {network['depth']}"] if network.get("depth") else []
        words += [f"patch {network['patch']}"] if network.get("patch", 1) > 1 else []
        words += [f"boost {network['boost']:g}"] if network.get("boost", 1) != 1 else []
        words += ["whitened"] if network.get("whitened") else []
        return ", ".join(words)

    def __str__(self) -> str:
        own = isinstance(self.scale, int)
        if not isinstance(self.data, ImagesRecipe):
            return self.data.kind if own else f"{self.architecture} on {self.data.kind}"
        trained = f"robust, {self.training.threat}" if self.training.threat else "standard"
        words = trained if own else f"{self.architecture}, {trained}"
        words += "" if self.data.images is None else f", {self.data.images} images"
        return words if self.data.classes is None else f"{words}, {len(self.data.classes)} classes"


@dataclass(frozen=True)
class MatchedRecipe:
    """D_R or D_NR, see ``construct.robust_dataset``. The seed of the source also draws where the search starts.

    Attributes:
        kind: ``D_R`` or ``D_NR``.
        source: the network whose representation is matched, and so the images too.
        images: how many images, from the first training image on.
        start: where the search starts, ``other`` or ``noise``.
        steps: of the search.
        step_size: their ℓ2 length, in pixel units.
        precision: the type that the gradients are computed in; another one gives other images.
    """

    kind: str
    source: NetworkRecipe
    images: int
    start: str
    steps: int
    step_size: float
    precision: str

    def __post_init__(self) -> None:
        inputs.one_of("kind", self.kind, MATCHED)

    @property
    def data(self) -> ImagesRecipe:
        """The images that are represented."""
        return dataclasses.replace(_ordinary(self.source), images=self.images)

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types."""
        return {**vars(self), "source": self.source.key_parts()}


@dataclass(frozen=True)
class TargetedRecipe:
    """D_rand or D_det, see ``construct.random_target_dataset``. The seed of the source also draws the targets.

    Attributes:
        kind: ``D_rand`` or ``D_det``.
        source: the network that is attacked; the images are those that it was trained on.
        threat: the images that the attack may choose from.
        steps: of the attack.
        step_size: their length, in pixel units.
        precision: the type that the gradients are computed in; another one gives other images.
    """

    kind: str
    source: NetworkRecipe
    threat: Threat
    steps: int
    step_size: float
    precision: str

    def __post_init__(self) -> None:
        inputs.one_of("kind", self.kind, TARGETED)

    @property
    def data(self) -> ImagesRecipe:
        """The images that are attacked."""
        return _ordinary(self.source)

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types."""
        return {**vars(self), "source": self.source.key_parts(), "threat": plain(self.threat)}


@dataclass(frozen=True)
class ReleasedRecipe:
    """One of the authors' own sets: its kind, and the fingerprint of its images."""

    kind: str
    fingerprint: str

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types."""
        return {"kind": self.kind, "released": self.fingerprint}


@dataclass(frozen=True)
class AutoAttackRecipe:
    """Test images attacked by AutoAttack, see ``autoattack.autoattacked_dataset``.

    Attributes:
        model: the network that is attacked.
        threat: the images that the attack may choose from.
        images: how many test images, from the first on.
        fingerprint: of these images.
        seed: of AutoAttack's draws. They begin anew with every piece, so its images depend on
        batch_size: the size of the pieces, too.
    """

    model: NetworkRecipe
    threat: Threat
    images: int
    fingerprint: str
    seed: int = 0
    batch_size: int = 100

    def key_parts(self) -> dict[str, Any]:
        """The recipe in JSON types. The fingerprint says how many images there are."""
        attack = {"threat": plain(self.threat), "seed": self.seed, "batch_size": self.batch_size}
        about = {"model": self.model.key_parts(), "data": {"fingerprint": self.fingerprint}}
        return {"kind": "AutoAttack", **about, **attack}


ConstructedRecipe = MatchedRecipe | TargetedRecipe | ReleasedRecipe


def check_kind(kind: str, source: str | None = None) -> None:
    """Refuse a ``kind`` of dataset that nobody constructs, or a ``source`` architecture for a kind that has none.

    Raises:
        ValueError: that is so.
    """
    if kind not in CONSTRUCTED:
        raise ValueError(f"kind must be one of {', '.join(CONSTRUCTED)}, got {kind!r}")
    if source is not None and kind not in TARGETED:
        raise ValueError(f"another architecture can make D_rand or D_det, got kind={kind!r}")


def _ordinary(source: NetworkRecipe) -> ImagesRecipe:
    """The images that a source was trained on, and makes other ones from."""
    if not isinstance(source.data, ImagesRecipe):
        raise ValueError(f"source must be trained on ordinary images, got one trained on {source.data.kind}")
    return source.data


def plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as JSON types; a threat as its ``key``, which names the norm.

    Fields that were added later and have their default are left out, so what is older keeps its key.
    """
    if isinstance(value, Threat):
        return value.key
    if dataclasses.is_dataclass(value):
        return {name: plain(item) for name, item in settings_of(value).items()}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
