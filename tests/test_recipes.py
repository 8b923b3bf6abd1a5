"""Recipes: values that follow from a profile alone, and from which alone everything is made."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from advfeat.construct import deterministic_target_dataset, nonrobust_dataset
from advfeat.experiments.profile_recipes import Recipes
from advfeat.experiments.profiles import PROFILES
from advfeat.experiments.recipes import (
    CONSTRUCTED,
    ImagesRecipe,
    MatchedRecipe,
    ReleasedRecipe,
    TargetedRecipe,
)
from advfeat.experiments.run import Run
from advfeat.models import build_model
from advfeat.threats import L2
from advfeat.train import train
from advfeat.whitening import whiten

TINY = {
    "train_images": 40, "test_images": 20, "network": "resnet9", "width": 4, "source_width": 4, "match_images": 20,
    "match_steps": 2, "construct_steps": 2, "standard": {"epochs": 1, "batch_size": 20},
    "match_source": {"epochs": 1, "batch_size": 20, "attack_steps": 1}, "on_det": {"epochs": 1, "batch_size": 20},
}  # fmt: skip


@pytest.fixture
def run() -> Run:
    return Run("planted", device="cpu", overrides=TINY)


def all_of(recipes: Recipes) -> dict:
    """One recipe of every sort."""
    found = {"standard": recipes.standard(seed=1), "source": recipes.source(seed=1), "robust": recipes.robust(seed=1)}
    found |= {"overfitted": recipes.overfitted(seed=1), "control": recipes.control(seed=1)}
    found |= {kind: recipes.constructed(kind, source_seed=2) for kind in CONSTRUCTED}
    found |= {f"on {kind}": recipes.trained_on(found[kind], seed=1) for kind in CONSTRUCTED}
    return found | {"on a released set": recipes.trained_on(ReleasedRecipe("D_R", "other images"), seed=1)}


@pytest.mark.parametrize("name", PROFILES)
def test_recipes_follow_from_a_profile_and_are_values(name):
    first, again, other = (all_of(Recipes(PROFILES[name], images, "torch.float32")) for images in ("a", "a", "b"))
    assert first == again
    assert [kind for kind in first if first[kind] == other[kind]] == ["on a released set"]
    for recipe in first.values():
        parts = recipe.key_parts()
        assert json.loads(json.dumps(parts)) == parts
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.source = None


def test_a_network_says_in_words_what_it_is():
    recipes = Recipes(PROFILES["planted"], "images", "torch.float32")
    det = recipes.constructed("D_det", source_seed=0)
    words = {
        str(recipes.standard(seed=0)): "standard",
        str(recipes.robust(seed=0)): "robust, l2 eps=0.5",
        str(recipes.overfitted(seed=0, attacked=False)): "standard, 400 images",
        str(recipes.standard(seed=0, architecture="vgg16")): "vgg16, standard",
        str(recipes.trained_on(det, seed=0)): "D_det",
        str(recipes.trained_on(det, seed=0, architecture="vgg16")): "vgg16 on D_det",
    }
    assert list(words) == list(words.values())


def test_a_kind_belongs_to_its_class_and_a_source_to_ordinary_images(unchecked_types):
    recipes = Recipes(PROFILES["planted"], "images", "torch.float32")
    for kind, wrong in (("D_R", "D_det"), ("D_det", "D_NR")):
        with pytest.raises(ValueError, match=f"kind must be .* got '{wrong}'"):
            dataclasses.replace(recipes.constructed(kind, source_seed=0), kind=wrong)
    learned = recipes.trained_on(recipes.constructed("D_R", source_seed=0), seed=0)
    with pytest.raises(ValueError, match="source must be trained on ordinary images, got one trained on D_R"):
        _ = dataclasses.replace(recipes.constructed("D_det", source_seed=0), source=learned).data


@pytest.mark.numbers
def test_what_is_made_is_what_the_recipe_says_whatever_the_profile_says(run):
    recipe = run.recipes.constructed("D_det", source_seed=0)
    assert isinstance(recipe, TargetedRecipe)
    changed = dataclasses.replace(recipe, threat=L2(0.2), steps=3, step_size=0.05)
    by_hand = deterministic_target_dataset(run.source(seed=0).model, run.train_set, L2(0.2), steps=3, step_size=0.05)
    assert run.make_dataset(changed).fingerprint() == by_hand.fingerprint() != run.make_dataset(recipe).fingerprint()

    matched = run.recipes.constructed("D_NR", source_seed=0)
    assert isinstance(matched, MatchedRecipe)
    changed = dataclasses.replace(matched, images=10, start="noise", step_size=0.3)
    by_hand = nonrobust_dataset(
        run.standard(seed=0).model, run.train_set.subset(slice(0, 10)), steps=2, step_size=0.3, seed=0, start="noise"
    )
    assert run.make_dataset(changed).fingerprint() == by_hand.fingerprint()

    network = run.recipes.standard(seed=0)
    brief = dataclasses.replace(network.training, lr=0.01, batch_size=10)
    images = ImagesRecipe(run.recipes.fingerprint, 30)
    changed = dataclasses.replace(network, scale=8, data=images, training=brief, seed=3, init_seed=4)
    by_hand = build_model("resnet9", width=8, seed=4)
    seen = run.train_set.subset(slice(0, 30))
    whiten(by_hand, seen.images)
    train(by_hand, seen, brief, seed=3)
    made = run.make_network(changed).model.state_dict()
    assert all(torch.equal(value, made[name]) for name, value in by_hand.state_dict().items())


def test_a_recipe_of_other_images_or_another_precision_is_refused(run):
    elsewhere = dataclasses.replace(run.recipes, fingerprint="other images")
    with pytest.raises(ValueError, match="of other training images than this run's: it names other images, the run"):
        run.make_network(elsewhere.standard(seed=0))
    recipe = dataclasses.replace(run.recipes.constructed("D_det", source_seed=0), precision="torch.float16")
    with pytest.raises(ValueError, match=r"of other precision than this run's: it names torch\.float16"):
        run.make_dataset(recipe)
    with pytest.raises(ValueError, match="the recipe is of a released D_R, but this run has no released sets"):
        run.make_dataset(ReleasedRecipe("D_R", "images"))


def test_a_source_is_found_under_the_key_of_its_own_recipe(run):
    source = run.source(seed=0)
    assert run.recipes.constructed("D_det", source_seed=0).source == source.recipe
    assert (run.store.root / "models" / run.store.key(source.recipe.key_parts())).is_dir()
