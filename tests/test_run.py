"""A run: everything goes through the store, once, and every number of the profile is part of the key."""

from __future__ import annotations

import json

import pytest
import torch

from advfeat import run as run_module
from advfeat.construct import nonrobust_dataset, robust_dataset
from advfeat.data import Dataset
from advfeat.records import provenance
from advfeat.run import CONSTRUCTED, Run
from advfeat.store import Store

TINY = {
    "train_images": 40,
    "test_images": 20,
    "width": 4,
    "learner_width": 4,
    "network": "resnet9",
    "construct_steps": 2,
    "construct_step_size": 0.3,
    "match_steps": 2,
    "standard": {"epochs": 1, "batch_size": 20},
    "robust": {"epochs": 1, "batch_size": 20, "attack_steps": 1},
    "on_robust": {"epochs": 1, "batch_size": 20},
    "on_nonrobust": {"epochs": 1, "batch_size": 20},
    "on_rand": {"epochs": 1, "batch_size": 20},
    "on_det": {"epochs": 1, "batch_size": 20},
}


def open_run(**changes: object) -> Run:
    return Run("planted", device="cpu", overrides={**TINY, **changes})


def same_weights(first, second) -> bool:
    one, two = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(one[key], two[key]) for key in one)


def test_chapters_find_what_another_one_has_made(monkeypatch):
    first = open_run()
    standard, robust = first.standard(seed=0), first.robust(seed=0)
    made = {kind: first.constructed(kind, source_seed=0) for kind in CONSTRUCTED}
    trained = {kind: first.trained_on(kind, source_seed=0, seed=1) for kind in CONSTRUCTED}

    def never(*args: object, **kwargs: object) -> None:
        pytest.fail("it was in the store")

    builders = ("random_target_dataset", "deterministic_target_dataset", "robust_dataset", "nonrobust_dataset")
    for name in ("train", *builders):
        monkeypatch.setattr(run_module, name, never)
    second = open_run()
    assert same_weights(second.standard(seed=0), standard)
    assert same_weights(second.robust(seed=0), robust)
    assert second.standard(seed=0).history == standard.history
    assert standard.seconds == standard.history[0]["seconds"]
    for kind in CONSTRUCTED:
        assert second.constructed(kind, source_seed=0).fingerprint() == made[kind].fingerprint()
        assert same_weights(second.trained_on(kind, source_seed=0, seed=1), trained[kind])


def test_attacked_data_come_from_the_training_images_and_the_source():
    run = open_run()
    for kind in ("D_rand", "D_det"):
        made = run.constructed(kind, source_seed=0)
        assert made.name == kind
        assert torch.equal(made.truth["source_labels"], run.train_set.labels)
        distance = (made.images.double() - run.train_set.images.double()).flatten(1).norm(dim=1)
        assert float(distance.max()) <= run.profile.eps * (1 + 1e-5)
    assert torch.equal(run.constructed("D_det", source_seed=0).labels, (run.train_set.labels + 1) % 10)
    first, other = (run.constructed("D_rand", source_seed=seed) for seed in (0, 1))
    assert first.fingerprint() != other.fingerprint()
    assert not torch.equal(first.labels, other.labels)


def test_matched_data_come_from_the_right_network_and_keep_their_labels():
    run = open_run()
    profile = run.profile
    for kind, build, source in (("D_R", robust_dataset, run.robust), ("D_NR", nonrobust_dataset, run.standard)):
        numbers = {"steps": profile.match_steps, "step_size": profile.match_step_size, "start": profile.match_start}
        expected = build(source(seed=1).model, run.train_set, seed=1, **numbers)
        made = run.constructed(kind, source_seed=1)
        assert made.name == kind
        assert made.fingerprint() == expected.fingerprint()
        assert torch.equal(made.labels, run.train_set.labels)
        assert torch.equal(made.truth["start_index"], expected.truth["start_index"])


def test_each_constructed_dataset_has_its_own_training():
    fields = {"D_R": "on_robust", "D_NR": "on_nonrobust", "D_rand": "on_rand", "D_det": "on_det"}
    for kind, field in fields.items():
        recipe = open_run(**{field: {"epochs": 1, "batch_size": 20, "lr": 0.01}}).trained_on(
            kind, source_seed=0, seed=0
        )
        assert recipe.recipe["train"]["lr"] == 0.01
        assert recipe.recipe["data"]["kind"] == kind


def test_training_and_test_images_are_different_images_of_one_world():
    run = open_run()
    assert (len(run.train_set), len(run.test_set)) == (40, 20)
    assert run.train_set.classes == run.test_set.classes
    pixels = {image.numpy().tobytes() for image in run.train_set.images}
    assert not any(image.numpy().tobytes() in pixels for image in run.test_set.images)


ARTIFACTS = ("standard", "robust", "D_R", "D_NR", "D_rand", "on_robust", "on_rand")


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"train_images": 41}, set(ARTIFACTS)),
        ({"width": 5}, set(ARTIFACTS)),
        ({"learner_width": 5}, {"on_robust", "on_rand"}),
        ({"standard": {"epochs": 1, "batch_size": 20, "lr": 0.3}}, {"standard", "D_NR", "D_rand", "on_rand"}),
        ({"robust": {"epochs": 1, "batch_size": 20, "threat": {"eps": 0.1}}}, {"robust", "D_R", "on_robust"}),
        ({"match_steps": 3}, {"D_R", "D_NR", "on_robust"}),
        ({"match_step_size": 0.3}, {"D_R", "D_NR", "on_robust"}),
        ({"match_start": "noise"}, {"D_R", "D_NR", "on_robust"}),
        ({"on_robust": {"epochs": 1, "batch_size": 20, "flip": True}}, {"on_robust"}),
        ({"eps": 0.25}, {"D_rand", "on_rand"}),
        ({"construct_steps": 3}, {"D_rand", "on_rand"}),
        ({"construct_step_size": 0.2}, {"D_rand", "on_rand"}),
        ({"on_rand": {"epochs": 1, "batch_size": 20, "flip": True}}, {"on_rand"}),
        ({"eval_steps": 3}, set()),
        ({"test_images": 10, "eval_images": 10}, set()),
    ],
    ids=str,
)
def test_a_changed_number_moves_what_depends_on_it_and_nothing_else(change, moves):
    before, after = keys(TINY), keys({**TINY, **change})
    assert {name for name in before if before[name] != after[name]} == moves


class Keys(Store):
    """A store that builds nothing and notes the keys that it is asked for."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__("unused")
        self.some_dataset = dataset
        self.asked: list[str] = []

    def model(self, recipe, fresh, _):
        self.asked.append(self.key(recipe))
        return fresh, []

    def dataset(self, recipe, _):
        self.asked.append(self.key(recipe))
        return self.some_dataset


def keys(overrides: dict) -> dict[str, str]:
    """Under which key a run looks for each of its artifacts."""
    run = Run("planted", device="cpu", overrides=overrides)
    run.store = Keys(run.train_set)
    run.standard(seed=0)
    run.robust(seed=0)
    for kind in ("D_R", "D_NR", "D_rand"):
        run.constructed(kind, source_seed=0)
    for kind in ("D_R", "D_rand"):
        run.trained_on(kind, source_seed=0, seed=0)
    return dict(zip(ARTIFACTS, run.store.asked, strict=True))


def test_seeds_make_different_networks():
    run = open_run()
    assert not same_weights(run.standard(seed=0), run.standard(seed=1))


def test_a_run_describes_itself_in_json():
    described = open_run().describe()
    assert json.loads(json.dumps(described)) == described
    assert described["train_images"] == 40
    assert described["standard"]["epochs"] == 1
    assert described["robust"]["threat"] == "l2 eps=0.5"
    assert described["eval_eps"][0] == 0.0
    assert described["device"] == "cpu"


def test_a_run_knows_its_provenance_and_time():
    run = open_run()
    assert set(run.provenance) == set(provenance("cpu"))
    before = run.elapsed
    assert 0 <= before <= run.elapsed


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'gpu'"):
        Run("planted", device="gpu")
    with pytest.raises(ValueError, match="unknown profile 'plantet'; there are planted"):
        Run("plantet")
    with pytest.raises(ValueError, match="unknown override 'epochs'"):
        Run("planted", overrides={"epochs": 3})
    with pytest.raises(ValueError, match="kind must be one of D_R, D_NR, D_rand, D_det, got 'D_S'"):
        open_run().constructed("D_S", source_seed=0)
    with pytest.raises(ValueError, match="kind must be one of D_R, D_NR, D_rand, D_det, got 'D_S'"):
        open_run().trained_on("D_S", source_seed=0, seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for one is right")
def test_a_missing_gpu_is_said():
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        Run("planted", device="cuda")
