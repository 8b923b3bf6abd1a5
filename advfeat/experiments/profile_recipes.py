"""The recipes at one profile: those of a run's standard, robust and constructed things. Nothing is computed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from advfeat.experiments.recipes import (
    MATCHED,
    ConstructedRecipe,
    ImagesRecipe,
    MatchedRecipe,
    NetworkRecipe,
    TargetedRecipe,
    check_kind,
)
from advfeat.experiments.settings import Profile
from advfeat.hyperparameters import TrainConfig
from advfeat.threats import L2

# Distance of the seed of a network's first weights from the seed of the network. Trained on a constructed dataset, it
# would otherwise begin with the weights that the source of that dataset began with, wherever both have one seed and one
# architecture. Twice that for a source of another architecture, which is neither the ordinary network of that name nor
# the one trained on its images.
INIT_SEED_OFFSET = 1_000_000


@dataclass(frozen=True)
class Recipes:
    """The recipes at one profile, by the names under which ``run.Run`` makes them.

    Attributes:
        profile: the scale, on the device that computes.
        fingerprint: of the training images.
        precision: the type that the device computes gradients faster in, such as ``torch.float32``.
    """

    profile: Profile
    fingerprint: str
    precision: str

    def standard(
        self, *, seed: int, architecture: str | None = None, classes: Sequence[int] | None = None
    ) -> NetworkRecipe:
        """See ``run.Run.standard``."""
        if architecture is None:
            return self._own(self.profile.training.standard, seed, classes=classes)
        if classes is not None:
            raise ValueError(f"the profile's own network can see some classes only, got architecture={architecture!r}")
        # An architecture by the name of the profile's own would begin with the weights of the network that it is to be
        # compared with.
        twin = architecture == self.profile.network.name
        return self._other(architecture, self.profile.transfer.standard, seed, apart=INIT_SEED_OFFSET if twin else 0)

    def source(self, *, seed: int, architecture: str | None = None) -> NetworkRecipe:
        """See ``run.Run.source``."""
        if architecture is None:
            return dataclasses.replace(self.standard(seed=seed), scale=self.profile.network.source_width)
        return self._other(architecture, self.profile.transfer.standard, seed, apart=2 * INIT_SEED_OFFSET)

    def robust(self, *, seed: int, eps: float | None = None, classes: Sequence[int] | None = None) -> NetworkRecipe:
        """See ``run.Run.robust``."""
        training = self.profile.training.robust
        return self._own(training if eps is None else training.at_radius(eps), seed, classes=classes)

    def match_source(self, *, seed: int) -> NetworkRecipe:
        """See ``run.Run.match_source``."""
        return self._own(self.profile.matching.robust_source, seed)

    def overfitted(self, *, seed: int, attacked: bool = True) -> NetworkRecipe:
        """See ``run.Run.overfitted``."""
        of = self.profile.training
        training = of.overfit if attacked else dataclasses.replace(of.overfit, threat=None)
        return self._own(training, seed, of.overfit_images)

    def control(self, *, seed: int) -> NetworkRecipe:
        """See ``run.Run.control``. In some profiles this is ``standard`` by another name: one recipe, one network."""
        count = self.profile.matching.images
        images = count if count < self.profile.data.train_images else None
        return self._own(self.profile.training.on_matched, seed, images)

    def constructed(self, kind: str, *, source_seed: int, source: str | None = None) -> MatchedRecipe | TargetedRecipe:
        """See ``run.Run.constructed``."""
        check_kind(kind, source)
        if kind in MATCHED:
            matching, robust = self.profile.matching, kind == "D_R"
            return MatchedRecipe(
                kind=kind,
                source=self.match_source(seed=source_seed) if robust else self.standard(seed=source_seed),
                images=matching.images,
                start=matching.start,
                steps=matching.steps,
                step_size=matching.step_size if robust else matching.nonrobust_step_size,
                precision=self.precision,
            )
        targeting = self.profile.targeting
        return TargetedRecipe(
            kind=kind,
            source=self.source(seed=source_seed, architecture=source),
            threat=L2(targeting.eps),
            steps=targeting.steps,
            step_size=targeting.step_size,
            precision=self.precision,
        )

    def trained_on(self, data: ConstructedRecipe, *, seed: int, architecture: str | None = None) -> NetworkRecipe:
        """See ``run.Run.trained_on``; ``data`` is the recipe of the set."""
        if architecture is None:
            by_kind = {"D_rand": self.profile.training.on_rand, "D_det": self.profile.training.on_det}
            recipe = self._own(by_kind.get(data.kind, self.profile.training.on_matched), seed)
            if data.kind in by_kind and self.profile.network.learner_width:
                recipe = dataclasses.replace(recipe, scale=self.profile.network.learner_width)
        elif data.kind == "D_det":
            recipe = self._other(architecture, self.profile.transfer.det, seed)
        else:
            raise ValueError(f"architectures are trained on D_det, got kind={data.kind!r}")
        return dataclasses.replace(recipe, data=data, init_seed=seed + INIT_SEED_OFFSET)

    def _own(
        self, training: TrainConfig, seed: int, images: int | None = None, classes: Sequence[int] | None = None
    ) -> NetworkRecipe:
        """The profile's own network, on ordinary images."""
        kept = None if classes is None else tuple(classes)
        network, data = self.profile.network, ImagesRecipe(self.fingerprint, images, kept)
        return NetworkRecipe(network.name, network.width, data, training, seed, init_seed=seed)

    def _other(self, architecture: str, training: TrainConfig, seed: int, *, apart: int = 0) -> NetworkRecipe:
        """One of the profile's other architectures, on ordinary images."""
        scales = self.profile.transfer.architectures
        if architecture not in scales:
            raise ValueError(f"unknown architecture {architecture!r}; there are {', '.join(sorted(scales))}")
        data = ImagesRecipe(self.fingerprint)
        return NetworkRecipe(architecture, scales[architecture], data, training, seed, init_seed=seed + apart)
