"""A run: everything goes through the store, once, and every number of the profile is part of the key."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from advfeat.attacks import match_representation
from advfeat.authors_release import FOLDERS
from advfeat.construct import deterministic_target_dataset, nonrobust_dataset, robust_dataset
from advfeat.data import Dataset
from advfeat.engine import fused_steps
from advfeat.experiments import datasets, making
from advfeat.experiments.profile_recipes import Recipes
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.provenance import provenance
from advfeat.experiments.recipes import CONSTRUCTED, plain
from advfeat.experiments.run import Run
from advfeat.experiments.store import Store
from advfeat.measures import accuracy
from advfeat.models import build_model
from advfeat.planted import PlantedWorld, planted
from advfeat.robustness import robust_accuracy
from advfeat.threats import L2, Linf
from advfeat.train import train
from advfeat.whitening import whiten

pytestmark = pytest.mark.numbers

TINY = {
    "train_images": 40,
    "test_images": 20,
    "width": 4,
    "source_width": 6,
    "network": "resnet9",
    "construct_steps": 2,
    "construct_step_size": 0.3,
    "match_images": 30,
    "match_steps": 2,
    "match_eps": 0.5,
    "watch_images": 10,
    "standard": {"epochs": 1, "batch_size": 20},
    "robust": {"epochs": 1, "batch_size": 20, "attack_steps": 1},
    "match_source": {"epochs": 1, "batch_size": 20, "attack_steps": 1},
    "overfit": {"epochs": 2, "batch_size": 10, "attack_steps": 1},
    "overfit_images": 20,
    "on_matched": {"epochs": 1, "batch_size": 20},
    "on_rand": {"epochs": 1, "batch_size": 20},
    "on_det": {"epochs": 1, "batch_size": 20},
}

SMALL_VGG = {
    "architectures": {"vgg16": {"width": 4}},
    "architecture_standard": {"epochs": 1, "batch_size": 20, "lr": 0.1},
    "architecture_det": {"epochs": 1, "batch_size": 20, "lr": 0.05},
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
        monkeypatch.setattr(making, name, never)
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
        assert float(distance.max()) <= run.profile.targeting.eps * (1 + 1e-5)
    assert torch.equal(run.constructed("D_det", source_seed=0).labels, (run.train_set.labels + 1) % 10)
    first, other = (run.constructed("D_rand", source_seed=seed) for seed in (0, 1))
    assert first.fingerprint() != other.fingerprint()
    assert not torch.equal(first.labels, other.labels)


def test_matched_data_come_from_the_right_network_and_keep_their_labels():
    run = open_run()
    profile = run.profile
    for kind, build, source, step_size in (
        ("D_R", robust_dataset, run.match_source, profile.matching.step_size),
        ("D_NR", nonrobust_dataset, run.standard, profile.matching.nonrobust_step_size),
    ):
        numbers = {"steps": profile.matching.steps, "step_size": step_size, "start": profile.matching.start}
        expected = build(source(seed=1).model, run.train_set.subset(slice(0, 30)), seed=1, **numbers)
        made = run.constructed(kind, source_seed=1)
        assert made.name == kind
        assert made.fingerprint() == expected.fingerprint()
        assert torch.equal(made.labels, run.train_set.labels[:30])
        assert torch.equal(made.truth["start_index"], expected.truth["start_index"])


def test_what_autoattack_found_is_kept_for_its_network_radius_and_images(monkeypatch):
    asked, looked_at, fingerprint = [], [], Dataset.fingerprint

    def attacked(model, dataset, threat, *, seed, batch_size, shards):
        assert (seed, batch_size) == (0, 100)  # its images depend on both, so the key names them
        asked.append((len(dataset), threat))
        return dataset.replace(images=dataset.images * 0.5)

    monkeypatch.setattr(making, "autoattacked_dataset", attacked)
    monkeypatch.setattr(Dataset, "fingerprint", lambda self: looked_at.append(len(self)) or fingerprint(self))
    run = open_run(autoattack_images=7)
    standard, other = run.standard(seed=0), run.standard(seed=1)
    found = run.autoattack_set(standard, 0.25)
    assert torch.equal(found.images, run.test_set.images[:7] * 0.5)
    assert asked == [(7, L2(0.25))]
    open_run(autoattack_images=7).autoattack_set(standard, 0.25)
    assert len(asked) == 1
    run.autoattack_set(standard, 0.5)
    run.autoattack_set(other, 0.25)
    open_run(autoattack_images=8).autoattack_set(standard, 0.25)
    assert asked[1:] == [(7, L2(0.5)), (7, L2(0.25)), (8, L2(0.25))]
    assert (looked_at.count(7), looked_at.count(8)) == (2, 1), "once in each run, whatever is made or read there"


def test_a_longer_search_goes_on_where_the_longest_shorter_one_ended(monkeypatch):
    expected = open_run(match_steps=4).constructed("D_R", source_seed=0)
    shutil.rmtree(open_run().store.root / "datasets")
    for steps in (1, 3):
        open_run(match_steps=steps).constructed("D_R", source_seed=0)
    taken = []

    def from_here(frozen, images, target, *, steps, step_size):
        taken.append(steps)
        return match_representation(frozen, images, target, steps=steps, step_size=step_size)

    monkeypatch.setattr("advfeat.construct.match_representation", from_here)
    made = open_run(match_steps=4).constructed("D_R", source_seed=0)
    assert taken == [1]
    assert made.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("kind", CONSTRUCTED)
def test_a_network_on_a_constructed_set_does_not_begin_as_its_source_did(monkeypatch, kind):
    began = {}

    def remember(model, dataset, config, *, seed, **rest):
        began[rest["description"]] = {name: value.clone() for name, value in model.state_dict().items()}
        return train(model, dataset, config, seed=seed, **rest)

    monkeypatch.setattr(making, "train", remember)
    run = open_run(source_width=TINY["width"])
    run.trained_on(kind, source_seed=0, seed=0)
    (source,) = began.keys() - {kind}
    one, two = (build_model(TINY["network"], width=TINY["width"], seed=seed).state_dict() for seed in (0, 1))
    # Some layers begin alike at every seed, and the stem follows from the images.
    drawn = [name for name in one if not torch.equal(one[name], two[name]) and not name.startswith("features.0.")]
    assert len(drawn) == 3
    for name in drawn:
        assert not torch.equal(began[kind][name], began[source][name])


def test_each_constructed_dataset_has_its_own_training():
    fields = {"D_R": "on_matched", "D_NR": "on_matched", "D_rand": "on_rand", "D_det": "on_det"}
    for kind, field in fields.items():
        recipe = open_run(**{field: {"epochs": 1, "batch_size": 20, "lr": 0.01}}).trained_on(
            kind, source_seed=0, seed=0
        )
        assert recipe.recipe.training.lr == 0.01
        assert recipe.recipe.data.kind == kind


def test_another_radius_is_another_network_and_the_profiles_own_is_the_same():
    run = open_run()
    robust = run.robust(seed=0)
    assert same_weights(run.robust(seed=0, eps=run.profile.training.robust.threat.eps), robust)
    wide = run.robust(seed=0, eps=1.0)
    assert wide.recipe.key_parts()["train"]["threat"] == "l2 eps=1"
    assert wide.recipe.training.attack_step_size == 2 * run.profile.training.robust.attack_step_size
    assert not same_weights(wide, robust)


def test_the_overfitted_network_sees_few_images_and_is_watched_on_unseen_ones():
    run = open_run()
    overfitted = run.overfitted(seed=3)
    profile = run.profile
    again = build_model(profile.network.name, width=profile.network.width, seed=3)
    seen, unseen = run.train_set.subset(slice(0, 20)), run.test_set.subset(slice(0, 10))
    whiten(again, seen.images)
    rows = train(again, seen, profile.training.overfit, seed=3)
    # Watching it has not changed it: to the bit the network that is trained unwatched.
    assert all(torch.equal(again.state_dict()[key], value) for key, value in overfitted.model.state_dict().items())
    assert [row["accuracy"] for row in overfitted.history] == [row["accuracy"] for row in rows]
    last, threat = overfitted.history[-1], profile.training.robust.threat
    assert last["test_accuracy"] == accuracy(again, unseen).value
    watched = robust_accuracy(again, unseen, threat, steps=profile.watching.steps)
    assert last["robust_test_accuracy"] == watched.value
    control = run.overfitted(seed=3, attacked=False)
    assert control.recipe.training == dataclasses.replace(overfitted.recipe.training, threat=None)
    assert control.recipe.data == overfitted.recipe.data
    assert not same_weights(control, overfitted)


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A folder of released sets and, in place of CIFAR-10's own files, images of the same shape."""
    world = planted(PlantedWorld(), 60, seed=0).replace(name="CIFAR-10")
    monkeypatch.setattr(datasets, "cifar10", lambda **_: world)
    for kind, folder in FOLDERS.items():
        place = tmp_path / folder
        place.mkdir()
        labels = (world.labels + 1) % 10 if kind == "D_det" else world.labels
        torch.save(list(world.images.split(20)), place / "CIFAR_ims")
        torch.save(list(labels.split(20)), place / "CIFAR_lab")
    return tmp_path


def test_released_sets_take_the_place_of_the_constructed_ones(downloaded, monkeypatch):
    def never(*args: object, **kwargs: object) -> None:
        pytest.fail("nothing is constructed")

    for name in ("random_target_dataset", "deterministic_target_dataset", "robust_dataset", "nonrobust_dataset"):
        monkeypatch.setattr(making, name, never)
    run = Run("cifar10-small", device="cpu", overrides=TINY, released=downloaded)
    own = Run("cifar10-small", device="cpu", overrides=TINY)
    for kind in CONSTRUCTED:
        made = run.constructed(kind, source_seed=0)
        assert made.info["dataset"] == "released"
        assert torch.equal(made.images, run.train_set.images)  # as many as the profile has training images
        trained = run.trained_on(kind, source_seed=0, seed=1)
        assert trained.recipe.key_parts()["data"] == {"kind": kind, "released": made.fingerprint()}
    assert torch.equal(run.constructed("D_det", source_seed=0).labels, (run.train_set.labels + 1) % 10)
    assert run.describe() == {**own.describe(), "released": True}


def test_released_sets_need_cifar10(downloaded):
    with pytest.raises(ValueError, match="released sets are images of CIFAR-10, but profile 'planted' is not of it"):
        Run("planted", released=downloaded)
    with pytest.raises(ValueError, match="kind must be one of D_R, D_NR, D_rand, D_det, got 'D_S'"):
        Run("cifar10-small", overrides=TINY, released=downloaded).constructed("D_S", source_seed=0)


def test_training_and_test_images_are_different_images_of_one_world():
    run = open_run()
    assert (len(run.train_set), len(run.test_set)) == (40, 20)
    assert run.train_set.classes == run.test_set.classes
    pixels = {image.numpy().tobytes() for image in run.train_set.images}
    assert not any(image.numpy().tobytes() in pixels for image in run.test_set.images)


ARTIFACTS = ("standard", "source", "robust", "control", "D_R", "D_NR", "D_rand", "on_D_R", "on_D_rand", "vgg16")


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"train_images": 41}, set(ARTIFACTS)),
        ({"width": 5}, set(ARTIFACTS) - {"vgg16", "source", "D_rand"}),
        ({"source_width": 5}, {"source", "D_rand", "on_D_rand"}),
        ({"learner_width": 5}, {"on_D_rand"}),
        ({"on_rand": {"epochs": 1, "batch_size": 20, "whitening": False}}, {"on_D_rand"}),
        (
            {"standard": {"epochs": 1, "batch_size": 20, "lr": 0.3}},
            {"standard", "source", "D_NR", "D_rand", "on_D_rand"},
        ),
        ({"robust": {"epochs": 1, "batch_size": 20, "threat": {"eps": 0.2}}}, {"robust"}),
        ({"match_source": {"epochs": 2, "batch_size": 20, "attack_steps": 1}}, {"D_R", "on_D_R"}),
        ({"match_steps": 3}, {"D_R", "D_NR", "on_D_R"}),
        ({"match_step_size": 0.3}, {"D_R", "on_D_R"}),
        ({"nonrobust_step_size": 0.3}, {"D_NR"}),
        ({"match_start": "noise"}, {"D_R", "D_NR", "on_D_R"}),
        ({"match_images": 20}, {"control", "D_R", "D_NR", "on_D_R"}),
        ({"match_eps": 1.0}, {"D_R", "on_D_R"}),
        ({"on_matched": {"epochs": 1, "flip": True}}, {"control", "on_D_R"}),
        ({"eps": 0.25}, {"D_rand", "on_D_rand"}),
        ({"construct_steps": 3}, {"D_rand", "on_D_rand"}),
        ({"construct_step_size": 0.2}, {"D_rand", "on_D_rand"}),
        ({"on_rand": {"epochs": 1, "batch_size": 20, "flip": True}}, {"on_D_rand"}),
        ({"eval_steps": 3}, set()),
        ({"architectures": {"vgg16": {"width": 8}}}, {"vgg16"}),
        ({"architecture_standard": {"epochs": 1}}, {"vgg16"}),
        ({"test_images": 10, "eval_images": 10}, set()),
    ],
    # Sorted: processes that share the tests must agree on their names.
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_changed_number_moves_what_depends_on_it_and_nothing_else(change, moves):
    before, after = keys(TINY), keys({**TINY, **change})
    assert {name for name in before if before[name] != after[name]} == moves


def test_held_out_images_are_training_images_that_no_network_sees():
    whole = planted(PlantedWorld(), 80, seed=1)
    run = open_run(held_out_from=60)
    assert torch.equal(run.train_set.images, whole.images[:40])
    assert torch.equal(run.test_set.images, whole.images[60:])
    assert run.test_set.images.untyped_storage().nbytes() == 20 * 3 * 32 * 32 * 4  # the others are not kept
    assert run.describe()["held_out_from"] == 60
    assert "held_out_from" not in open_run().describe()
    with pytest.raises(ValueError, match="held_out_from=39 must be train_images=40 or more"):
        open_run(held_out_from=39)


def test_more_held_out_images_than_there_are_are_refused(monkeypatch):
    few = dataclasses.replace(datasets.DATASETS["planted"], load=lambda *_: planted(PlantedWorld(), 70, seed=1))
    monkeypatch.setitem(datasets.DATASETS, "planted", few)
    with pytest.raises(ValueError, match="held_out_from=60 and test_images=20 must be at most 70 together"):
        _ = open_run(held_out_from=60).test_set


def test_runs_of_the_same_images_share_them_and_no_others():
    one, two = open_run(held_out_from=60), open_run(held_out_from=60, construct_steps=3)
    two.share_images(one)
    assert two.train_set is one.train_set
    assert two.recipes.constructed("D_rand", source_seed=0).steps == 3
    alone = open_run(held_out_from=60, construct_steps=3)
    assert two.recipes.standard(seed=0).key_parts() == alone.recipes.standard(seed=0).key_parts()
    with pytest.raises(ValueError, match="other must be a run of Data"):
        open_run(held_out_from=61).share_images(one)


def test_a_first_layer_is_whitened_unless_its_training_says_otherwise():
    training = {"epochs": 0, "batch_size": 20}
    whitened = open_run(on_rand=training).trained_on("D_rand", source_seed=0, seed=0).model
    trained = open_run(on_rand={**training, "whitening": False}).trained_on("D_rand", source_seed=0, seed=0).model
    stems = [next(model.features.children()) for model in (whitened, trained)]
    assert torch.equal(stems[0].weight[:12], -stems[0].weight[12:])
    assert not torch.equal(stems[1].weight[:12], -stems[1].weight[12:])
    assert stems[1].weight.requires_grad
    assert not stems[0].weight.requires_grad


def test_the_control_is_the_standard_network_where_both_are_trained_alike():
    training = {"epochs": 1, "batch_size": 20, "lr": 0.1, "weight_decay": 1e-3}
    alike = {**TINY, "match_images": TINY["train_images"], "standard": training, "on_matched": training}
    assert keys(alike)["control"] == keys(alike)["standard"] != keys(TINY)["control"]


def test_the_source_is_the_standard_network_unless_it_has_a_width_of_its_own():
    found = keys({**TINY, "source_width": TINY["width"]})
    assert found["source"] == found["standard"] != keys(TINY)["source"]


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
    run.source(seed=0)
    run.robust(seed=0)
    run.control(seed=0)
    for kind in ("D_R", "D_NR", "D_rand"):
        run.constructed(kind, source_seed=0)
    for kind in ("D_R", "D_rand"):
        run.trained_on(kind, source_seed=0, seed=0)
    run.standard(seed=0, architecture="vgg16")
    return dict(zip(ARTIFACTS, run.store.asked, strict=True))


def test_architectures_are_trained_on_the_images_and_on_d_det_each_once(monkeypatch):
    first = open_run(**SMALL_VGG)
    standard = first.standard(seed=1, architecture="vgg16")
    det = first.trained_on("D_det", source_seed=0, seed=1, architecture="vgg16")
    assert standard.network == det.network == "vgg16, width 4, depth 1, patch 4, boost 32"
    assert not same_weights(standard, det)
    assert standard.recipe.training.lr == 0.1
    assert det.recipe.training.lr == 0.05

    def never(*args: object, **kwargs: object) -> None:
        pytest.fail("it was in the store")

    monkeypatch.setattr(making, "train", never)
    second = open_run(**SMALL_VGG)
    assert same_weights(second.standard(seed=1, architecture="vgg16"), standard)
    assert same_weights(second.trained_on("D_det", source_seed=0, seed=1, architecture="vgg16"), det)


def test_another_architecture_can_be_the_source_of_attacked_images():
    run = open_run(**SMALL_VGG)
    source = run.source(seed=0, architecture="vgg16")
    assert source.network.startswith("vgg16, width 4")
    assert source.recipe.training.lr == SMALL_VGG["architecture_standard"]["lr"]
    made = {kind: run.constructed(kind, source_seed=0, source="vgg16") for kind in ("D_rand", "D_det")}
    for kind, dataset in made.items():
        # Its step towards the target, not that of the profile's own source.
        assert dataset.fingerprint() != run.constructed(kind, source_seed=0).fingerprint()
    expected = deterministic_target_dataset(
        source.model, run.train_set, L2(0.5), steps=TINY["construct_steps"], step_size=TINY["construct_step_size"]
    )
    assert made["D_det"].fingerprint() == expected.fingerprint()
    learned = run.trained_on("D_det", source_seed=0, seed=1, architecture="vgg16", source="vgg16")
    assert learned.recipe.data.source == source.recipe
    assert open_run(**SMALL_VGG).source(seed=0, architecture="vgg16").recipe == source.recipe


def test_a_source_shares_no_first_weights_with_those_that_its_images_are_shown_to():
    run = open_run(**SMALL_VGG)
    run.store = Keys(run.train_set)
    source = run.source(seed=0, architecture="vgg16").recipe
    shown = run.standard(seed=0, architecture="vgg16").recipe
    learned = run.trained_on("D_det", source_seed=0, seed=0, architecture="vgg16", source="vgg16").recipe
    assert len({recipe.init_seed for recipe in (source, shown, learned)}) == 3
    assert dataclasses.replace(source, init_seed=0) == dataclasses.replace(shown, init_seed=0)


def test_the_profile_s_own_network_by_name_begins_with_weights_of_its_own():
    """At ``cifar10-gpu``, without a ``transfer_source``, the source is of an architecture that it attacks."""
    run = open_run(network="resnet18", architectures={"resnet18": {"width": 4}, "vgg16": {"width": 4}})
    run.store = Keys(run.train_set)
    twin, other = (run.standard(seed=0, architecture=name).recipe for name in ("resnet18", "vgg16"))
    assert twin.init_seed != twin.seed
    assert other.init_seed == other.seed


def test_an_architecture_that_the_profile_does_not_have_is_refused():
    run = open_run()
    with pytest.raises(ValueError, match=r"unknown architecture 'vgg19'; there are densenet, .*vgg16"):
        run.standard(seed=0, architecture="vgg19")
    with pytest.raises(ValueError, match=r"unknown architecture 'vgg19'"):
        run.source(seed=0, architecture="vgg19")
    with pytest.raises(ValueError, match="architectures are trained on D_det, got kind='D_R'"):
        run.trained_on("D_R", source_seed=0, seed=0, architecture="vgg16")
    with pytest.raises(ValueError, match="another architecture can make D_rand or D_det, got kind='D_NR'"):
        run.constructed("D_NR", source_seed=0, source="vgg16")


def test_radii_that_print_alike_are_told_apart_and_others_keep_their_words():
    for threat, words in (
        (L2(0.5), "l2 eps=0.5"),
        (L2(1.0), "l2 eps=1"),
        (Linf(0.25), "linf eps=0.25"),
        (Linf(8 / 255), "linf eps=0.03137254901960784"),
        (Linf(0.03137), "linf eps=0.03137"),
        (L2(0.1 + 0.2), "l2 eps=0.30000000000000004"),
    ):
        assert plain(threat) == words
    assert keys({**TINY, "eps": 0.5})["D_rand"] != keys({**TINY, "eps": 0.5 + 2**-40})["D_rand"]


def test_recipes_and_records_name_the_precision_that_the_device_computes_faster(monkeypatch):
    keys = set()
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(fused_steps, "fast_dtype", {"cpu": dtype}.get)
        run = Run("cifar10-cpu", device="cpu")
        name = str(dtype).removeprefix("torch.")
        described = run.describe()
        trainings = [item for item in described.values() if isinstance(item, dict) and "precision" in item]
        assert len(trainings) == 9
        assert {training["precision"] for training in trainings} == {name}
        recipes = Recipes(run.profile, "fingerprint", str(dtype))
        assert recipes.robust(seed=0).training.precision == name
        keys.add(json.dumps(recipes.constructed("D_R", source_seed=0).key_parts()))
    assert len(keys) == 2
    assert Run("planted", device="cpu").profile == get_profile("planted")


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
