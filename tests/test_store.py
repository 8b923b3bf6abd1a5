"""The store: keys, whole files only, one builder at a time, and reading executes no code."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import advfeat
from advfeat.data import Dataset
from advfeat.experiments.checkpoints import DatasetShards, TrainingCheckpoint
from advfeat.experiments.store import Store
from advfeat.models import Classifier, build_model

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


def test_the_longest_of_the_shorter_searches_is_found_by_the_notes_of_what_is_finished(tmp_path, monkeypatch):
    store, dataset = Store(tmp_path), noise()
    recipe = {"kind": "D_R", "step_size": 0.5, "steps": 1000}
    assert store.finished_with_fewer(recipe, "steps") is None
    for steps, change in (
        (3, {}),
        (40, {}),
        (1000, {}),
        (2000, {}),
        (500, {"step_size": 0.25}),
        (700, {"kind": "D_NR"}),
    ):
        store.dataset({**recipe, "steps": steps, **change}, lambda _, steps=steps: dataset.replace(name=f"{steps}"))
    begun = tmp_path / "datasets" / store.key({**recipe, "steps": 900})
    begun.mkdir()
    (begun / "recipe.json").write_text(json.dumps({**recipe, "steps": 900}))  # begun, and not finished
    for place, note in (("damaged", "{"), ("foreign", "[]"), ("other", '{"steps": [1]}'), ("word", '{"steps": "9"}')):
        (tmp_path / "datasets" / place).mkdir()
        (tmp_path / "datasets" / place / "recipe.json").write_text(note)
    looked, finished = [], Store.finished_dataset
    monkeypatch.setattr(Store, "finished_dataset", lambda self, of: looked.append(of["steps"]) or finished(self, of))
    assert store.finished_with_fewer(recipe, "steps").name == "40"
    assert looked == [900, 700, 500, 40]  # the noted numbers, not every number below a thousand
    assert store.finished_with_fewer({**recipe, "steps": 3}, "steps") is None


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
    from advfeat.experiments.store import Store

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


# Faults of a store by a disk, a drive, a kill and another recipe. Each is an error that names the file and the
# cure, or does no harm; none is a result.


def stored(root: Path, kind: str) -> tuple[Path, Callable[[], object]]:
    """A store with one artifact: its folder, and a function that reads all of it that counts."""
    store = Store(root)
    if kind == "models":
        store.model(RECIPE, tiny(0), lambda *_: [{"epoch": 1, "loss": 0.75}])

        def read() -> object:
            model, history = store.model(RECIPE, tiny(1), never)
            return history, {key: value.tolist() for key, value in model.state_dict().items()}

    else:
        store.dataset(RECIPE, lambda _: noise())

        def read() -> object:
            found = store.dataset(RECIPE, never)
            again = store.finished_dataset(RECIPE)
            assert again.fingerprint() == found.fingerprint()
            truth = {key: value.tolist() for key, value in found.truth.items()}
            return found.fingerprint(), found.classes, found.name, dict(found.info), truth

    return root / kind / store.key(RECIPE), read


FILES = {
    "models": ["model.safetensors", "history.json", "history.json.crc32"],
    "datasets": ["dataset.safetensors", "dataset.json", "dataset.json.crc32"],
}
each_file = pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names])


@each_file
def test_a_flipped_bit_is_named_with_its_cure_wherever_it_is(tmp_path, kind, name):
    folder, read = stored(tmp_path, kind)
    before = read()
    path = folder / name
    whole = path.read_bytes()
    # The header and the first numbers, then all along the file.
    places = sorted({*range(0, min(len(whole), 900), 7), *range(0, len(whole), len(whole) // 40 + 1)})
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"delete the folder .*, and it is made anew") as caught:
            read()
        assert str(path).removesuffix(".crc32") in str(caught.value)
        assert f"delete the folder {folder}," in str(caught.value)
    path.write_bytes(whole)
    assert read() == before


@each_file
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named_with_its_cure(tmp_path, kind, name, kept):
    folder, read = stored(tmp_path, kind)
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"is damaged or foreign .* delete the folder") as caught:
        read()
    assert str(path).removesuffix(".crc32") in str(caught.value)


@pytest.mark.parametrize("kind", FILES)
def test_what_was_deleted_as_the_message_says_is_made_anew(tmp_path, kind):
    folder, read = stored(tmp_path, kind)
    before = read()
    (folder / FILES[kind][1]).unlink()
    with pytest.raises(ValueError, match=f"{FILES[kind][1]} is damaged or foreign"):
        read()
    shutil.rmtree(folder)
    assert stored(tmp_path, kind)[1]() == before


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("moved", ["folder", "tensors"])
def test_an_artifact_of_another_recipe_is_refused(tmp_path, kind, moved):
    folder, _ = stored(tmp_path / "other", kind)
    store, recipe = Store(tmp_path / "mine"), {**RECIPE, "seed": 1}
    place = tmp_path / "mine" / kind / store.key(recipe)
    shutil.copytree(folder, place)
    if moved == "tensors":
        (place / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=f"made by another recipe, with the key {store.key(RECIPE)}") as caught:
        store.model(recipe, tiny(1), never) if kind == "models" else store.dataset(recipe, never)
    assert f"delete the folder {place}," in str(caught.value)


def as_earlier_versions_wrote(path: Path) -> None:
    """Take key and checksum out of a file."""
    save_file(load_file(path), path)


@pytest.mark.parametrize("kind", FILES)
def test_what_an_earlier_version_wrote_is_read_under_its_own_recipe_only(tmp_path, kind):
    folder, read = stored(tmp_path, kind)
    before, key = read(), folder.name
    as_earlier_versions_wrote(folder / FILES[kind][0])
    assert read() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES[kind], "lock", "recipe.json"])
    (folder / "recipe.json").unlink()  # a note that is lost proves nothing
    assert read() == before
    (folder / "recipe.json").write_text(json.dumps({**RECIPE, "seed": 1}))
    with pytest.raises(ValueError, match=r"recipe\.json is damaged or foreign \(it notes another recipe"):
        read()
    assert key == Store(tmp_path).key(RECIPE)


def test_weights_of_another_architecture_are_named(tmp_path):
    folder, _ = stored(tmp_path, "models")
    with pytest.raises(ValueError, match=r"(?s)model\.safetensors is damaged or foreign \(Error.* delete the folder"):
        Store(tmp_path).model(RECIPE, build_model("resnet9", classes=2, width=5, seed=0), never)
    assert folder.exists()


def test_keys_are_those_of_earlier_versions():
    """Stores hold hours of work, which a changed key would lose."""
    assert Store("unused").key(RECIPE) == "87c238b4eac196b93c2e"


STATE = {"model": {"weight": torch.arange(300.0)}, "history": [{"epoch": 1}], "generator": torch.arange(9)}


@pytest.mark.parametrize("fault", ["flipped bit", "flipped head", "half", "empty", "another recipe", "no state"])
def test_a_checkpoint_that_is_not_this_runs_is_named_with_its_cure(tmp_path, fault):
    path = tmp_path / "checkpoint.pt"
    TrainingCheckpoint(path, "mine").save(STATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if fault == "flipped bit" else 25] ^= 1
    if fault in ("flipped bit", "flipped head"):
        path.write_bytes(content)
    elif fault == "another recipe":
        TrainingCheckpoint(path, "another").save(STATE)
    elif fault == "no state":
        torch.save([1], path)
    else:
        path.write_bytes(content[: len(content) // 2 if fault == "half" else 0])
    with pytest.raises(ValueError, match="delete it, and the training begins anew") as caught:
        TrainingCheckpoint(path, "mine").load()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("fault", ["none", "flipped bit", "half"])
def test_a_checkpoint_of_an_earlier_version_is_read_unless_it_is_damaged(tmp_path, fault):
    path = tmp_path / "checkpoint.pt"
    torch.save(STATE, path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(STATE["model"]["weight"].numpy().tobytes()) + 101] ^= 1
    if fault == "none":
        assert torch.equal(TrainingCheckpoint(path, "mine").load()["model"]["weight"], STATE["model"]["weight"])
        return
    path.write_bytes(damaged if fault == "flipped bit" else whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged or incomplete.*delete it, and the training"):
        TrainingCheckpoint(path, "mine").load()


@pytest.mark.parametrize("fault", ["flipped bit", "half", "another recipe", "another place"])
def test_a_shard_that_is_not_of_this_set_is_named_with_its_cure(tmp_path, fault):
    mine = DatasetShards(tmp_path, "mine")
    (DatasetShards(tmp_path, "another") if fault == "another recipe" else mine).save(0, noise().images)
    path = tmp_path / "shard-00000000.safetensors"
    content = bytearray(path.read_bytes())
    if fault == "flipped bit":
        content[-3] ^= 1
        path.write_bytes(content)
    elif fault == "half":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "another place":
        path = path.rename(tmp_path / "shard-00000006.safetensors")
    with pytest.raises(ValueError, match="delete it, and these images are made anew") as caught:
        mine.load(6 if fault == "another place" else 0)
    assert str(path) in str(caught.value)


def test_a_shard_of_an_earlier_version_is_read(tmp_path):
    save_file({"images": noise().images}, tmp_path / "shard-00000000.safetensors")
    assert torch.equal(DatasetShards(tmp_path, "mine").load(0), noise().images)


def test_unfinished_work_of_another_recipe_is_not_taken_up(tmp_path):
    """A folder that was copied under another key, with the checkpoint of an earlier version, which has no key."""
    store, recipe = Store(tmp_path), {**RECIPE, "seed": 1}
    folder = tmp_path / "models" / store.key(recipe)
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    torch.save(STATE, folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"recipe\.json is damaged or foreign") as caught:
        store.model(recipe, tiny(), never)
    assert f"delete the folder {folder}," in str(caught.value)


@pytest.mark.parametrize(
    "shared", [lambda x: x, lambda x: x.view(6), lambda x: x[:6], lambda x: x.unflatten(0, (6, 1))[:, 0]]
)
def test_truth_may_hold_one_tensor_twice(tmp_path, shared):
    made = noise()
    labels = made.labels
    twice = made.replace(truth={"source_labels": labels, "again": shared(labels)})
    for build in (lambda _: twice, never):
        back = Store(tmp_path).dataset(RECIPE, build)
        assert torch.equal(back.labels, labels)
        assert torch.equal(back.truth["source_labels"], labels)
        assert torch.equal(back.truth["again"], labels)


class Full(io.RawIOBase):
    """A file on a full disk."""

    def __init__(self, real: io.IOBase) -> None:
        self.fileno = real.fileno
        self.close_real = real.close

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        self.close_real()


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing can be written any more, neither by Python nor by the library that writes tensors."""
    real = Path.open

    def opened(self: Path, mode: str = "r", *arguments: object, **named: object) -> object:
        stream = real(self, mode, *arguments, **named)
        return Full(stream) if "w" in mode else stream

    def save(*arguments: object, **named: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("advfeat.experiments.tensor_files.save_file", save)


@pytest.mark.parametrize("what", ["checkpoint", "shard", "model", "dataset", "note"])
def test_a_full_disk_is_called_by_its_name(tmp_path, request, what):
    store = Store(tmp_path)

    def make(shards: DatasetShards) -> Dataset:
        if what != "note":
            request.getfixturevalue("full_disk")
        if what == "shard":
            shards.save(0, noise().images)
        return noise()

    def fit(model: Classifier, checkpoint: TrainingCheckpoint) -> list[dict[str, float]]:
        checkpoint.save(STATE)
        request.getfixturevalue("full_disk")
        if what == "checkpoint":
            checkpoint.save(STATE)
        return []

    if what == "note":
        request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left on device; make room there and start again") as caught:
        store.model(RECIPE, tiny(), fit) if what in ("checkpoint", "model") else store.dataset(RECIPE, make)
    assert caught.value.errno == errno.ENOSPC
    name = {"checkpoint": "checkpoint.pt", "shard": "shard-00000000.safetensors", "model": "history.json"}
    assert Path(caught.value.filename).name == {**name, "dataset": "dataset.json", "note": "recipe.json"}[what]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    kept = {"checkpoint.pt"} if what in ("checkpoint", "model") else set()
    assert left == {"lock", "recipe.json"} - ({"recipe.json"} if what == "note" else set()) | kept


def test_a_full_disk_under_the_tensors_leaves_what_was_made_before(tmp_path, monkeypatch):
    """The library that writes them says so in words of its own."""

    def build(shards: DatasetShards) -> Dataset:
        shards.save(0, noise().images)

        def save(tensors: object, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("advfeat.experiments.tensor_files.save_file", save)
        return noise()

    with pytest.raises(OSError, match=r"No space left on device; make room there.*dataset\.safetensors") as caught:
        Store(tmp_path).dataset(RECIPE, build)
    assert caught.value.errno == errno.ENOSPC
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"lock", "recipe.json", "dataset.json", "dataset.json.crc32", "shard-00000000.safetensors"}


READER = """
    import errno, json, os, sys
    from pathlib import Path

    root, kind, recipe = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    changing = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime", "os.chmod", "os.truncate", "os.link")

    def read_only(event, arguments):
        # As a drive that is mounted to be read: whoever asks, and be it root, changes nothing.
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        elif event in changing:
            path, writes = arguments[0], True
        else:
            return
        if writes and isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(str(root)):
            if event == "os.mkdir" and os.path.isdir(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    from advfeat.models import build_model
    from advfeat.experiments.store import Store

    def missing(*_):
        raise SystemExit("built")

    sys.addaudithook(read_only)
    store = Store(root)
    try:
        if kind == "models":
            print(store.model(recipe, build_model("resnet9", classes=2, width=4, seed=1), missing)[1])
        else:
            print(store.dataset(recipe, missing).fingerprint(), store.finished_dataset(recipe).name)
    except OSError as error:
        print(error.errno == errno.EROFS, error)
    """


def read_only(root: Path, kind: str, recipe: dict) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(advfeat.__file__).parent.parent)}
    words = [sys.executable, "-c", textwrap.dedent(READER), str(root), kind, json.dumps(recipe)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", FILES)
def test_a_store_that_cannot_be_written_can_be_read(tmp_path, kind):
    folder, _ = stored(tmp_path, kind)
    (folder / "lock").unlink()
    (folder / "recipe.json").unlink()
    (folder / ".dataset.json.part").touch()  # there to be swept, if that were possible
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    expected = {"models": str([{"epoch": 1, "loss": 0.75}]), "datasets": f"{noise().fingerprint()} noise"}
    assert read_only(tmp_path, kind, RECIPE) == expected[kind]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # A missing artifact is an error that names the store and the cure, before anything is computed.
    said = read_only(tmp_path, kind, {**RECIPE, "seed": 1})
    assert said.startswith("True ")
    assert f"the store {tmp_path} lacks this" in said
    assert "set ADVFEAT_STORE to another folder" in said


def test_what_kills_have_left_is_cleared_up(tmp_path):
    folder, read = stored(tmp_path, "datasets")
    before = read()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".dataset.safetensors.{dead.pid}.part", "shard-00000000.safetensors"):
        (folder / name).write_bytes(b"left over")
    mine = folder / f".dataset.json.{os.getpid()}.part"
    mine.write_bytes(b"another thread's")
    assert read() == before
    assert {path.name for path in folder.iterdir()} == {*FILES["datasets"], "lock", "recipe.json", mine.name}


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002], ids=oct)
def test_everything_in_a_store_is_as_readable_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        for kind in FILES:
            stored(tmp_path / "store", kind)
        DatasetShards(tmp_path / "store", "mine").save(0, noise().images)
        TrainingCheckpoint(tmp_path / "store" / "checkpoint.pt", "mine").save(STATE)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}
