"""Which networks and datasets a chapter takes from the store. A test compares this with a store after all chapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from advfeat.experiments.recipes import (
    CONSTRUCTED,
    TARGETED,
    AutoAttackRecipe,
    ImagesRecipe,
    MatchedRecipe,
    NetworkRecipe,
    ReleasedRecipe,
    TargetedRecipe,
)
from advfeat.experiments.run import Run

ArtifactRecipe = NetworkRecipe | MatchedRecipe | TargetedRecipe | AutoAttackRecipe


def needed(chapter: str, run: Run, *, seed: int, source_seed: int) -> list[ArtifactRecipe]:
    """The recipes that a chapter asks a run for, and all that these need, each once and after all that it needs.

    Args:
        chapter: stem of the chapter's file; one that is not known here asks for nothing.
        source_seed: of the networks that its datasets are made with; by default chapters take ``seed``.
    """
    asks = _ASKS.get(chapter[:2])
    return with_all_below(asks(run, Seeds(seed, source_seed)) if asks else (), run)


def with_all_below(recipes: Iterable[ArtifactRecipe], run: Run) -> list[ArtifactRecipe]:
    """These recipes and all that they need, each once and after all that it needs."""
    ordered: dict[str, ArtifactRecipe] = {}
    for recipe in recipes:
        for one in _with_all_below(recipe):
            ordered.setdefault(run.store.key(one.key_parts()), one)
    return list(ordered.values())


def below(recipe: ArtifactRecipe) -> list[ArtifactRecipe]:
    """The recipes that one names itself: of the network that makes or is attacked, of the images of a training."""
    if isinstance(recipe, NetworkRecipe):
        return [] if isinstance(recipe.data, ImagesRecipe | ReleasedRecipe) else [recipe.data]
    return [recipe.model if isinstance(recipe, AutoAttackRecipe) else recipe.source]


def _with_all_below(recipe: ArtifactRecipe) -> Iterator[ArtifactRecipe]:
    for one in below(recipe):
        yield from _with_all_below(one)
    yield recipe


@dataclass(frozen=True)
class Seeds:
    """The seed of a chapter's run, and that of the networks that its datasets are made with."""

    seed: int
    source: int


Asks = Callable[[Run, Seeds], Iterator[ArtifactRecipe]]


def _chapter_1(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield run.recipes.standard(seed=of.seed)


def _chapter_2(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield run.recipes.standard(seed=of.seed)
    yield run.recipes.robust(seed=of.seed)


def _chapter_3(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    training, robust = run.profile.training, run.recipes.robust(seed=of.seed)
    yield from _chapter_2(run, of)
    for eps in training.robust_eps:
        yield run.recipes.robust(seed=of.seed, eps=eps)
    for attacked in (True, False):
        yield run.recipes.overfitted(seed=of.seed, attacked=attacked)
    if run.profile.evaluation.autoattack_eps and training.robust.threat:
        yield run.autoattack_recipe(robust, training.robust.threat.eps)


def _chapter_4(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    recipes, matching = run.recipes, run.profile.matching
    learners = {}
    for kind in ("D_R", "D_NR"):
        made = recipes.constructed(kind, source_seed=of.source)
        learners[kind] = recipes.trained_on(made, seed=of.seed)
        yield learners[kind]
    yield recipes.control(seed=of.seed)
    yield recipes.match_source(seed=of.seed)
    for eps in run.profile.evaluation.autoattack_eps:
        yield run.autoattack_recipe(learners["D_R"], eps)
    few = dataclasses.replace(matching, images=matching.sweep_images)
    others = [("D_R", dataclasses.replace(few, steps=steps)) for steps in sorted({*matching.sweep, matching.steps})]
    others += [(kind, dataclasses.replace(few, start="noise")) for kind in ("D_R", "D_NR")]
    for kind, changed in others:
        other = dataclasses.replace(recipes, profile=dataclasses.replace(run.profile, matching=changed))
        yield other.trained_on(other.constructed(kind, source_seed=of.source), seed=of.seed)
    if run.profile.data.name != "planted":
        yield recipes.standard(seed=of.source + 1)
        yield recipes.match_source(seed=of.source + 1)


def _chapter_5(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    for kind in ("D_rand", "D_det"):
        yield run.recipes.trained_on(run.recipes.constructed(kind, source_seed=of.source), seed=of.seed)
    by_source = run.recipes.constructed("D_rand", source_seed=of.source)
    by_robust = dataclasses.replace(by_source, source=run.recipes.robust(seed=of.source))
    yield run.recipes.trained_on(by_robust, seed=of.seed)


def _chapter_6(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    transfer = run.profile.transfer
    made = run.recipes.constructed("D_det", source_seed=of.source, source=transfer.source or None)
    for name in transfer.architectures:
        yield run.recipes.standard(seed=of.seed, architecture=name)
        yield run.recipes.trained_on(made, seed=of.seed, architecture=name)


def _chapter_8(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    for one in (of.seed, of.seed ^ 1):
        yield run.recipes.standard(seed=one)
        yield run.recipes.robust(seed=one, eps=run.profile.matching.eps)


def _chapter_9(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield from _chapter_2(run, of)
    for kind in CONSTRUCTED:
        yield run.recipes.trained_on(run.recipes.constructed(kind, source_seed=of.source), seed=of.seed)


def _chapter_10(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield from _chapter_2(run, of)
    for kind in TARGETED:
        yield run.recipes.constructed(kind, source_seed=of.source)
    for more in range(1, 5):  # three that a perturbation must not fool, and one that has no part in it
        yield run.recipes.standard(seed=of.seed + more)


def _chapter_11(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    for classes in (None,) if run.profile.data.name == "planted" else (None, range(7)):
        yield run.recipes.standard(seed=of.seed, classes=classes)
        for eps in run.profile.training.robust_eps:
            yield run.recipes.robust(seed=of.seed, eps=eps, classes=classes)
    for name in run.profile.transfer.architectures:
        yield run.recipes.standard(seed=of.seed, architecture=name)
    yield from _chapter_9(run, of)


def _chapter_12(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield from _chapter_2(run, of)
    yield run.recipes.standard(seed=of.seed + 1)


def _chapter_14(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    yield run.recipes.robust(seed=of.seed)


def _chapter_13(run: Run, of: Seeds) -> Iterator[ArtifactRecipe]:
    made = run.recipes.constructed("D_rand", source_seed=of.seed)
    yield run.recipes.trained_on(made, seed=of.seed) if run.profile.data.name == "planted" else made


_ASKS: dict[str, Asks] = {
    "01": _chapter_1,
    "02": _chapter_2,
    "03": _chapter_3,
    "04": _chapter_4,
    "05": _chapter_5,
    "06": _chapter_6,
    "08": _chapter_8,
    "09": _chapter_9,
    "10": _chapter_10,
    "11": _chapter_11,
    "12": _chapter_12,
    "13": _chapter_13,
    "14": _chapter_14,
}
