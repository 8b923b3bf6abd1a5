"""The store: keys, whole files only, one builder at a time, and nothing that is executed on reading."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advfeat
from advfeat.data import Dataset
from advfeat.models import Classifier, build_model
from advfeat.store import DatasetShards, Store, TrainingCheckpoint

RECIPE = {"network": {"name": "resnet9", "width": 4}, "train": {"lr": 0.1, "shift": 0}, "radii": [0.25, 0.5], "seed": 0}


def noise(seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    return Dataset(
        images=torch.rand((6, 3, 5, 4), generator=generator),
        labels=torch.randint(2, (6,), generator=generator),
        classes=("left", "right"),
        name="noise",
        truth={"row": torch.arange(6), "angle": torch.rand(6, generator=generator)},
        info={"seed": seed, "recipe": {"steps": [1, 2]}},
    )


def never(*_: object) -> None:
    pytest.fail("it was in the store and need not be built")


def tiny(seed: int = 0) -> Classifier:
    return build_model("resnet9", classes=2, width=4, seed=seed)


def test_equal_recipes_have_one_key_whatever_the_order():
    key = Store("unused").key
    assert key(RECIPE) == key(dict(reversed(RECIPE.items())))
    assert key(RECIPE) == key({**RECIPE, "network": {"width": 4, "name": "resnet9"}})
    assert len(key(RECIPE)) == 20
    assert set(key(RECIPE)) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"name": "resnet9", "width": 5}}, {"network": {"name": "resnet18", "width": 4}},
        {"train": {"lr": 0.1 + 1e-16}}, {"train": {"lr": 0.1, "shift": 1}}, {"train": {"lr": 0.1, "shift": False}},
        {"train": {"lr": 0.1, "shift": None}}, {"radii": [0.5, 0.25]}, {"radii": [0.25]}, {"seed": 1}, {"seed": "0"},
        {"another": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_changed_recipe_has_another_key(change):
    key = Store("unused").key
    assert key({**RECIPE, **change}) != key(RECIPE)


leaves = st.one_of(st.integers(-2, 2), st.floats(-2, 2), st.sampled_from(["", "0", "1.0"]), st.booleans(), st.none())
recipes = st.dictionaries(st.sampled_from("ab"), st.one_of(leaves, st.lists(leaves, max_size=2)), max_size=2)


@settings(deadline=None, max_examples=50)
@given(recipes, recipes)
def test_keys_are_equal_exactly_where_recipes_are(first, second):
    key = Store("unused").key
    # True == 1 == 1.0 in Python, but they are different recipes; their text tells them apart.
    assert (key(first) == key(second)) == (exact(first) == exact(second))


def exact(value: object) -> object:
    """A form in which equality is also equality of types."""
    if isinstance(value, dict):
        return frozenset((key, exact(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(exact(item) for item in value)
    return (type(value).__name__, repr(value))


def test_a_recipe_holds_json_only():
    with pytest.raises(TypeError):
        Store("unused").key({"weights": torch.zeros(2)})


def test_the_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "moved"))
    assert Store().root == tmp_path / "moved"
    assert Store(tmp_path / "given").root == tmp_path / "given"
    Store().dataset(RECIPE, lambda _: noise())
    assert list((tmp_path / "moved").rglob("dataset.safetensors"))
    monkeypatch.delenv("ADVFEAT_STORE")
    assert Store().root.name == "advfeat"


def test_a_dataset_comes_back_whole(tmp_path):
    made = noise()
    for build in (lambda _: made, never):
        back = Store(tmp_path).dataset(RECIPE, build)
        assert back.fingerprint() == made.fingerprint()
        assert torch.equal(back.images, made.images)
        assert (back.classes, back.name, back.info) == (made.classes, made.name, made.info)
        assert back.truth.keys() == made.truth.keys()
        assert all(torch.equal(back.truth[key], made.truth[key]) for key in made.truth)
    other = Store(tmp_path).dataset({**RECIPE, "seed": 1}, lambda _: noise(1))
    assert other.fingerprint() != made.fingerprint()


def test_a_model_comes_back_whole_and_is_trained_once(tmp_path):
    history = [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5}]

    def fit(model: Classifier, checkpoint: TrainingCheckpoint) -> list[dict[str, float]]:
        with torch.no_grad():
            for value in model.parameters():
                value.mul_(1.5)
        checkpoint.save({"model": model.state_dict()})
        return history

    trained, rows = Store(tmp_path).model(RECIPE, tiny(0).train(), fit)
    again, same_rows = Store(tmp_path).model(RECIPE, tiny(1).train(), never)
    assert rows == same_rows == history
    assert not trained.training
    assert not again.training
    expected = {key: value * 1.5 for key, value in tiny(0).named_parameters()}
    for model in (trained, again):
        assert all(torch.equal(value, expected[key]) for key, value in model.named_parameters())
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert (tmp_path / "models").is_dir()


@pytest.mark.parametrize("name", ["dataset.safetensors", "dataset.json", "shard-00000000.safetensors"])
def test_a_file_half_written_by_a_dead_process_is_not_read(tmp_path, name):
    store = Store(tmp_path)
    folder = tmp_path / "datasets" / store.key(RECIPE)
    folder.mkdir(parents=True)
    (folder / f".{name}.4711.part").write_bytes(b"half of it")
    pieces = []

    def build(shards: DatasetShards) -> Dataset:
        pieces.append(shards.load(0))
        return noise()

    assert store.dataset(RECIPE, build).fingerprint() == noise().fingerprint()
    assert pieces == [None]


def test_a_write_that_fails_leaves_the_old_file_and_no_trace(tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path / "checkpoint.pt")
    checkpoint.save({"epoch": torch.tensor(1)})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save({"epoch": torch.tensor(2), "bad": lambda: None})
    assert checkpoint.load() == {"epoch": torch.tensor(1)}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_build_that_fails_can_be_tried_again(tmp_path):
    def fails(shards: DatasetShards) -> Dataset:
        shards.save(0, noise().images)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).dataset(RECIPE, fails)
    found = []

    def build(shards: DatasetShards) -> Dataset:
        found.append(shards.load(0))
        assert shards.load(6) is None
        return noise()

    Store(tmp_path).dataset(RECIPE, build)
    assert torch.equal(found[0], noise().images)
    assert not list(tmp_path.rglob("shard-*"))


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_is_never_executed(tmp_path):
    sprung = tmp_path / "sprung"
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": Trap(sprung)}, path)
    with pytest.raises(pickle.UnpicklingError):
        TrainingCheckpoint(path).load()
    assert not sprung.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert sprung.exists()


BUILDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import torch
    from advfeat.data import Dataset
    from advfeat.store import Store

    def build(shards):
        Path(sys.argv[2]).touch()
        time.sleep(1.0)
        return Dataset(torch.full((2, 3, 4, 4), 0.25), torch.tensor([0, 1]), ("a", "b"), "of the child")

    Store(sys.argv[1]).dataset({"what": "shared"}, build)
    """
)


def test_a_second_process_waits_for_the_first_and_builds_nothing(tmp_path):
    started = tmp_path / "started"
    child = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path / "store"), str(started)],
        env=os.environ | {"PYTHONPATH": str(Path(advfeat.__file__).parent.parent)},
    )
    try:
        deadline = time.monotonic() + 120
        while not started.exists():
            assert child.poll() is None, "the builder ended before it began"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not list(tmp_path.rglob("dataset.safetensors"))  # the child is at work
        shared = Store(tmp_path / "store").dataset({"what": "shared"}, never)
    finally:
        assert child.wait(timeout=120) == 0
    assert shared.name == "of the child"
    assert torch.equal(shared.images, torch.full((2, 3, 4, 4), 0.25))
