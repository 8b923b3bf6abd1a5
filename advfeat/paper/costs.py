"""What the jobs of a plan will cost: time from short trials on this machine, disk from the shapes of the tensors.

A trial trains, matches or attacks a few images as the job will, from random weights. Its time by image is kept, so that
it is run once on a machine. Chapters' own measurements are no one loop that could be tried: their time is that of an
earlier run of the same chapter at the same profile, here or as it was recorded on another machine, seen from how long
that machine took to train the ordinary network.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from advfeat.experiments.making import construct_dataset
from advfeat.experiments.provenance import provenance
from advfeat.experiments.recipes import AutoAttackRecipe, ImagesRecipe, NetworkRecipe, plain
from advfeat.experiments.records import load_record
from advfeat.experiments.run import Run
from advfeat.files import write_whole
from advfeat.hyperparameters import TrainConfig
from advfeat.models import build_model
from advfeat.paper.needs import ArtifactRecipe
from advfeat.robustness import robust_accuracy
from advfeat.threats import L2
from advfeat.train import train
from advfeat.variables import variable
from advfeat.whitening import whiten

# AutoAttack spends on an image that withstands everything about so many evaluations of the gradient: 100 steps of
# APGD, as many for each of nine targets, the same again of FAB, and 5,000 forward passes of Square, a third each. About
# half of the images of a robust network withstand; the others drop out early.
_AUTOATTACK = 0.5 * (100 + 2 * 900 + 5000 / 3)
# Images that an attack has fooled take no more part in a watched epoch.
_WATCHED = 0.6


class Costs:
    """Measured costs on this machine, kept in a file.

    Args:
        kept: the file; what was measured on another device, with another engine or another number of threads is
            measured anew.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._known: dict[str, float] = {}
        if kept.exists():
            self._known = json.loads(kept.read_text(encoding="utf-8"))

    def seconds(self, recipe: ArtifactRecipe, run: Run) -> float:
        """Estimated seconds to make a network or dataset on this machine, once what it needs is there."""
        if isinstance(recipe, NetworkRecipe):
            return self._of_training(recipe, run)
        if isinstance(recipe, AutoAttackRecipe):
            return recipe.images * _AUTOATTACK * self._of_attack(recipe.model, run)
        images = recipe.data.images or len(run.train_set)
        parts = {"kind": recipe.kind, "network": recipe.source.network}
        return images * recipe.steps * self._by_trial("step", parts, run, lambda: _construction(recipe, run))

    def chapter(self, chapter: str, run: Run) -> float | None:
        """Estimated seconds of a chapter's own measurements; None where it has no record at this profile."""
        try:
            first = load_record(chapter, run.profile.name).first
            there, own = float(first["seconds"]["standard"]), float(first["seconds"]["chapter"])
        except (FileNotFoundError, KeyError, ValueError):
            return None
        return own * self._of_training(run.recipes.standard(seed=0), run) / there

    def measured(self, recipes: Iterable[ArtifactRecipe], run: Run) -> float:
        """Estimated seconds to ask the networks among the recipes once for all test images."""
        networks = [recipe for recipe in recipes if isinstance(recipe, NetworkRecipe)]
        # A step of an attack is a pass forwards and one back.
        return sum(0.5 * run.profile.data.test_images * self._of_attack(recipe, run) for recipe in networks)

    def _of_training(self, recipe: NetworkRecipe, run: Run) -> float:
        of = recipe.data if isinstance(recipe.data, ImagesRecipe) else getattr(recipe.data, "data", ImagesRecipe(""))
        images, training = of.images or len(run.train_set), recipe.training
        parts = {"network": recipe.network, "train": {**plain(training), "epochs": 1}}
        seconds = images * training.epochs * self._by_trial("image", parts, run, lambda: _training(recipe, run))
        if recipe.watched:
            watching = run.profile.watching
            passes = watching.images * watching.steps * training.epochs * _WATCHED
            seconds += passes * self._of_attack(recipe, run)
        return seconds

    def _of_attack(self, recipe: NetworkRecipe, run: Run) -> float:
        return self._by_trial("attack", {"network": recipe.network}, run, lambda: _attack(recipe, run))

    def _by_trial(self, of: str, parts: dict[str, Any], run: Run, trial: Callable[[], float]) -> float:
        here = provenance(run.device)
        about = {**parts, "device": here["device"], "engine": here["engine"], "threads": here["threads"]}
        key = f"{of} {json.dumps(about, sort_keys=True, default=str)}"
        if key not in self._known:
            with variable("ADVFEAT_PROGRESS", "off"):  # a trial is over before a bar can be read
                self._known[key] = trial()
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._kept, json.dumps(self._known, indent=1))
        return self._known[key]


def megabytes(recipe: ArtifactRecipe, run: Run) -> float:
    """What an artifact takes on the disk, in millions of bytes."""
    if isinstance(recipe, NetworkRecipe):
        with torch.device("meta"):
            return float(sum(of.numel() * 4 for of in _fresh(recipe, run).state_dict().values()) / 1e6)
    images = recipe.images if isinstance(recipe, AutoAttackRecipe) else recipe.data.images or len(run.train_set)
    return images * run.train_set.images[0].numel() * 4 / 1e6


def _fresh(recipe: NetworkRecipe, run: Run) -> Any:
    return build_model(**recipe.network, seed=recipe.init_seed, classes=run.train_set.num_classes)


def _clock(run: Run) -> float:
    """Seconds; on a CPU those that this process worked, by thread, so that whatever else is running does not count."""
    return time.perf_counter() if run.device.type != "cpu" else time.process_time() / torch.get_num_threads()


def _training(recipe: NetworkRecipe, run: Run) -> float:
    """Seconds by image and epoch: of three batches more than one, so that what is done once does not count."""

    def timed(batches: int) -> float:
        images = run.train_set.subset(slice(0, batches * recipe.training.batch_size))
        short: TrainConfig = dataclasses.replace(recipe.training, epochs=1)
        model = _fresh(recipe, run).to(run.device)
        whiten(model, images.images)
        began = _clock(run)
        train(model, images, short, seed=0)
        return _clock(run) - began

    timed(1)
    return _longer(timed, 1, 4) / recipe.training.batch_size


def _construction(recipe: Any, run: Run) -> float:
    """Seconds by image and step."""
    images = run.train_set.subset(slice(0, 250))
    model = _fresh(recipe.source, run).to(run.device).eval()

    def timed(steps: int) -> float:
        began = _clock(run)
        construct_dataset(dataclasses.replace(recipe, steps=steps), model, images)
        return _clock(run) - began

    timed(1)
    return _longer(timed, 1, 4) / len(images)


def _attack(recipe: NetworkRecipe, run: Run) -> float:
    """Seconds by image and step of an attack that no image drops out of: of random weights inside a tiny radius."""
    images = run.test_set.subset(slice(0, 250))
    model = _fresh(recipe, run).to(run.device).eval()
    with torch.no_grad():
        answers = torch.cat([model(batch).argmax(1) for batch in images.images.split(125)])
    images, threat = images.replace(labels=answers), L2(1e-6)

    def timed(steps: int) -> float:
        began = _clock(run)
        robust_accuracy(model, images, threat, steps=steps)
        return _clock(run) - began

    timed(1)
    return _longer(timed, 1, 5) / len(images)


def _longer(timed: Callable[[int], float], few: int, many: int) -> float:
    """Time of one of the rounds in which ``many`` are more than ``few``; never below a tenth of a round's own."""
    short, long = timed(few), timed(many)
    return max((long - short) / (many - few), long / many / 10)
