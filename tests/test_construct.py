"""Constructed datasets: targets, distances after the way through the store, and runs that are killed half-way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor
from torch.nn import functional as F

import advfeat
from advfeat import autoattack as autoattack_module
from advfeat.attacks import match_representation, pgd
from advfeat.autoattack import autoattacked_dataset
from advfeat.construct import deterministic_target_dataset, nonrobust_dataset, random_target_dataset, robust_dataset
from advfeat.data import Dataset
from advfeat.experiments.store import Store
from advfeat.models import Classifier, build_model, freeze
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers


def noise(n: int = 40, classes: int = 10, size: int = 12) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset(
        images=torch.rand((n, 3, size, size), generator=generator),
        labels=torch.randint(classes, (n,), generator=generator),
        classes=tuple("abcdefghij"[:classes]),
        name="noise",
        truth={"row": torch.arange(n)},
        info={"seed": 0},
    )


@pytest.fixture(scope="module")
def source() -> Classifier:
    return build_model("resnet9", width=4, seed=0).eval()


class Memory:
    """Finished pieces in a dictionary."""

    def __init__(self) -> None:
        self.pieces: dict[int, Tensor] = {}

    def load(self, start: int) -> Tensor | None:
        return self.pieces.get(start)

    def save(self, start: int, images: Tensor) -> None:
        self.pieces[start] = images.clone()


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.03)], ids=str)
@pytest.mark.parametrize("kind", ["D_rand", "D_det"])
def test_what_the_store_gives_back_is_within_the_threat(source, kind, threat, tmp_path):
    dataset = noise()
    attack = {"steps": 4, "step_size": threat.eps / 2, "batch_size": 16}
    build = {
        "D_rand": lambda shards: random_target_dataset(source, dataset, threat, seed=3, shards=shards, **attack),
        "D_det": lambda shards: deterministic_target_dataset(source, dataset, threat, shards=shards, **attack),
    }
    Store(tmp_path).dataset({"kind": kind}, build[kind])
    back = Store(tmp_path).dataset({"kind": kind}, lambda _: pytest.fail("it was stored"))
    assert back.name == kind
    for dtype in (torch.float32, torch.float64):
        offset = (back.images.to(dtype) - dataset.images.to(dtype)).flatten(1)
        distance = offset.norm(dim=1) if isinstance(threat, L2) else offset.abs().amax(1)
        # 432 pixels rounded by 2**-25 each move an image by 6e-7 at most; a float32 norm is off by 16 * 2**-24. A pixel
        # is rounded by 2**-25 = 3e-8, which is 1e-6 of 0.03.
        assert float(distance.max()) <= threat.eps * (1 + 1e-5)
        # And the attack uses its budget: every image moved by half the radius at least.
        assert float(distance.min()) >= threat.eps / 2
    assert float(back.images.min()) >= 0
    assert float(back.images.max()) <= 1
    assert back.images.dtype == torch.float32
    assert torch.equal(back.truth["source_labels"], dataset.labels)
    assert torch.equal(back.truth["row"], dataset.truth["row"])
    assert back.info == {
        "from": {"seed": 0}, "threat": str(threat), "steps": 4, "step_size": attack["step_size"],
    }  # fmt: skip


def test_deterministic_targets_are_the_next_class(source):
    dataset = noise(n=20).replace(labels=torch.arange(20) % 10)
    made = deterministic_target_dataset(source, dataset, L2(0.5), steps=0, step_size=0.1)
    assert made.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert made.truth["source_labels"].tolist() == dataset.labels.tolist()


def test_random_targets_are_uniform_over_all_classes_and_seeded(source):
    dataset = noise(n=6000, size=12)
    made = [random_target_dataset(source, dataset, L2(0.5), steps=0, step_size=0.1, seed=s).labels for s in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    for targets in (made[0], made[2]):
        counts = torch.bincount(targets, minlength=10).double()
        assert float(((counts - 600) ** 2 / 600).sum()) < chi2.ppf(0.999, 9)
        # The own class is one of the ten: 600 of 6000, give or take four standard deviations of 23.
        own = int((targets == dataset.labels).sum())
        assert abs(own - 600) < 4 * (6000 * 0.1 * 0.9) ** 0.5
        # And no target depends on the label: every cell of the table is near 60.
        table = torch.bincount(targets * 10 + dataset.labels, minlength=100).double()
        expected = torch.outer(counts, torch.bincount(dataset.labels, minlength=10).double()) / 6000
        assert float(((table.view(10, 10) - expected) ** 2 / expected).sum()) < chi2.ppf(0.999, 81)


def test_the_attack_goes_towards_the_targets(source):
    dataset = noise()
    made = random_target_dataset(source, dataset, L2(0.5), steps=5, step_size=0.2, seed=0)
    model = freeze(source, dtype=torch.float32)
    before = F.cross_entropy(model(dataset.images), made.labels, reduction="none")
    after = F.cross_entropy(model(made.images), made.labels, reduction="none")
    assert bool((after < before).all())  # every image, not the average


def test_images_are_those_of_targeted_pgd_in_the_order_of_the_dataset(source):
    dataset = noise(n=30)
    made = deterministic_target_dataset(source, dataset, L2(0.5), steps=3, step_size=0.2, batch_size=8)
    model = freeze(source)
    pieces = [
        pgd(model, part.images, (part.labels + 1) % 10, L2(0.5), steps=3, step_size=0.2, targeted=True)
        for part in (dataset.subset(slice(start, start + 8)) for start in range(0, 30, 8))
    ]
    assert torch.equal(made.images, torch.cat(pieces))


def test_finished_pieces_are_taken_up_and_the_rest_is_made(source):
    dataset = noise(n=30)
    attack = {"steps": 3, "step_size": 0.2, "batch_size": 8, "seed": 5}
    memory = Memory()
    whole = random_target_dataset(source, dataset, L2(0.5), shards=memory, **attack)
    assert sorted(memory.pieces) == [0, 8, 16, 24]
    assert [len(memory.pieces[start]) for start in (0, 8, 16, 24)] == [8, 8, 8, 6]

    # Marked pieces show which are read; the missing ones are computed again, with the same bits.
    marked = Memory()
    marks = {0: torch.full((8, 3, 12, 12), 0.25), 16: torch.full((8, 3, 12, 12), 0.75)}
    marked.pieces = dict(marks)
    resumed = random_target_dataset(source, dataset, L2(0.5), shards=marked, **attack)
    assert torch.equal(resumed.images[0:8], marks[0])
    assert torch.equal(resumed.images[16:24], marks[16])
    assert torch.equal(resumed.images[8:16], whole.images[8:16])
    assert torch.equal(resumed.images[24:], whole.images[24:])
    assert torch.equal(resumed.labels, whole.labels)


MATCHED = pytest.mark.parametrize(("construct", "name"), [(robust_dataset, "D_R"), (nonrobust_dataset, "D_NR")])


@MATCHED
def test_matched_images_keep_their_labels_and_say_where_they_started(source, construct, name, tmp_path):
    dataset = noise(n=30)

    def build(shards):
        return construct(source, dataset, steps=2, step_size=0.5, seed=4, batch_size=8, shards=shards)

    Store(tmp_path).dataset({"kind": name}, build)
    back = Store(tmp_path).dataset({"kind": name}, lambda _: pytest.fail("it was stored"))
    assert back.name == name
    assert torch.equal(back.labels, dataset.labels)
    assert torch.equal(back.truth["source_labels"], dataset.labels)
    assert torch.equal(back.truth["row"], dataset.truth["row"])
    assert back.info == {"from": {"seed": 0}, "steps": 2, "step_size": 0.5, "start": "other", "seed": 4}
    assert back.images.dtype == torch.float32
    # Two steps of 0.5 from the image at the given index, and not from the image itself.
    moved = (back.images.double() - dataset.images[back.truth["start_index"]].double()).flatten(1).norm(dim=1)
    assert float(moved.max()) <= 1 + 1e-5
    assert float((back.images - dataset.images).flatten(1).norm(dim=1).min()) > 2


def test_no_steps_give_the_start_images_one_drawn_for_each_row(source):
    dataset = noise(n=60)
    made = [robust_dataset(source, dataset, steps=0, step_size=0.1, seed=seed) for seed in (0, 0, 1)]
    index = made[0].truth["start_index"]
    assert torch.equal(made[0].images, dataset.images[index])
    assert torch.equal(index, made[1].truth["start_index"])
    assert not torch.equal(index, made[2].truth["start_index"])
    # Drawn independently: some image begins two searches (no two alike in 60 draws: 1 in 10**25).
    assert len(index.unique()) < 60


def test_every_other_image_is_as_likely_a_start_and_the_image_itself_never_is(source):
    few = [robust_dataset(source, noise(n=3), steps=0, step_size=0.1, seed=seed) for seed in range(10)]
    # Drawn with itself among them, thirty rows would all miss themselves once in 190,000 tests.
    assert all(bool((made.truth["start_index"] != torch.arange(3)).all()) for made in few)
    index = robust_dataset(source, noise(n=2001), steps=0, step_size=0.1, seed=0).truth["start_index"]
    apart = (index - torch.arange(2001)) % 2001
    counts = torch.bincount((apart - 1) // 100, minlength=20).double()  # 1 to 2000 rows further on, in twenty bins
    assert float(((counts - 2001 / 20) ** 2 / (2001 / 20)).sum()) < chi2.ppf(0.999, 19)


def test_noise_to_start_from_is_gray_with_a_spread_of_one_twentieth(source):
    dataset = noise(n=40)
    made = robust_dataset(source, dataset, steps=0, step_size=0.1, seed=0, start="noise")
    assert "start_index" not in made.truth
    assert made.info["start"] == "noise"
    values = made.images.double().flatten()
    # 17,280 values: their mean is off by 0.05 / sqrt(n), their spread by 0.05 / sqrt(2 n), four times that at most.
    bound = 4 * 0.05 / len(values) ** 0.5
    assert abs(float(values.mean()) - 0.5) < bound
    assert abs(float(values.std()) - 0.05) < bound / 2**0.5
    # And the size of the pieces does not change the draws.
    pieces = robust_dataset(source, dataset, steps=0, step_size=0.1, seed=0, start="noise", batch_size=7)
    assert torch.equal(pieces.images, made.images)


@pytest.mark.parametrize("start", ["other", "noise"])
def test_every_matched_image_is_represented_more_like_its_own(source, start):
    dataset = noise(n=20)
    numbers = {"step_size": 0.05, "seed": 0, "start": start}
    model = freeze(source, dtype=torch.float32)
    before, after = (
        (model.representation(made.images) - model.representation(dataset.images)).norm(dim=1)
        for made in (robust_dataset(source, dataset, steps=steps, **numbers) for steps in (0, 5))
    )
    assert bool((after < before).all())  # every image, not the average


@pytest.mark.parametrize("start", ["other", "noise"])
def test_matched_images_are_those_of_the_attack_and_pieces_are_taken_up(source, start):
    dataset = noise(n=30)
    numbers = {"step_size": 0.2, "seed": 3, "start": start, "batch_size": 8}
    begin = robust_dataset(source, dataset, steps=0, **numbers).images
    memory = Memory()
    whole = robust_dataset(source, dataset, steps=3, shards=memory, **numbers)
    model = freeze(source)
    for first in range(0, 30, 8):
        rows = slice(first, first + 8)
        target = model.representation(dataset.images[rows])
        expected = match_representation(model, begin[rows], target, steps=3, step_size=0.2)
        assert torch.equal(whole.images[rows], expected)
        assert torch.equal(memory.pieces[first], expected)
    marked = Memory()
    marked.pieces[8] = torch.full((8, 3, 12, 12), 0.25)
    resumed = robust_dataset(source, dataset, steps=3, shards=marked, **numbers)
    assert torch.equal(resumed.images[8:16], marked.pieces[8])
    assert torch.equal(resumed.images[:8], whole.images[:8])
    assert torch.equal(resumed.images[16:], whole.images[16:])


@pytest.mark.parametrize("start", ["other", "noise"])
def test_a_search_of_fewer_steps_is_taken_further_to_the_same_images(source, start):
    dataset = noise(n=20)
    numbers = {"step_size": 0.2, "seed": 3, "start": start}
    short, whole = (nonrobust_dataset(source, dataset, steps=steps, **numbers) for steps in (2, 5))
    kept = short.images.clone()
    onward = nonrobust_dataset(source, dataset, steps=5, begun=short, **numbers)
    assert onward.fingerprint() == whole.fingerprint()
    assert onward.info == whole.info
    assert torch.equal(short.images, kept)
    assert not torch.equal(whole.images, kept)


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"step_size": 0.3}, {"start": "noise"}, {"steps": 1}, {"images": 10}, {"kind": "D_R"}, {"info": {}}],
)
def test_a_search_is_not_taken_on_from_another_one(source, change):
    dataset = noise(n=20)
    numbers = {"steps": 2, "step_size": 0.2, "seed": 3, "start": "other"}
    begun = nonrobust_dataset(source, dataset, **numbers)
    build = robust_dataset if change.pop("kind", "") else nonrobust_dataset
    dataset = dataset.subset(slice(0, change.pop("images", 20)))
    dataset = dataset.replace(info=change.pop("info", dataset.info))
    with pytest.raises(ValueError, match="not to be made from D_NR of"):
        build(source, dataset, **{**numbers, **change}, begun=begun)


def test_targets_are_represented_once_and_the_head_never_answers(source, monkeypatch):
    calls = []
    represent = Classifier.represent

    def counted(self, normalised):
        calls.append(len(normalised))
        return represent(self, normalised)

    monkeypatch.setattr(Classifier, "represent", counted)
    monkeypatch.setattr(Classifier, "classify", lambda *_: pytest.fail("matching needs no logits"))
    nonrobust_dataset(source, noise(n=10), steps=3, step_size=0.1, seed=0, batch_size=5)
    assert calls == [5, 5, 5, 5] * 2  # per piece: its targets, then three steps


def test_the_source_dataset_is_not_changed(source):
    dataset = noise()
    before = dataset.fingerprint()
    deterministic_target_dataset(source, dataset, L2(0.5), steps=1, step_size=0.5)
    robust_dataset(source, dataset, steps=1, step_size=0.5, seed=0)
    assert dataset.fingerprint() == before
    assert set(dataset.truth) == {"row"}


def test_bad_arguments_are_refused(source):
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        deterministic_target_dataset(source, noise(), L2(0.5), steps=1, step_size=0.1, batch_size=0)
    with pytest.raises(ValueError, match="steps must be 0 or more"):
        random_target_dataset(source, noise(), L2(0.5), steps=-1, step_size=0.1, seed=0)
    with pytest.raises(ValueError, match="start must be other or noise, got 'zero'"):
        robust_dataset(source, noise(), steps=1, step_size=0.1, seed=0, start="zero")
    with pytest.raises(ValueError, match="start='other' needs two images or more, got 1"):
        robust_dataset(source, noise(n=1), steps=1, step_size=0.1, seed=0)
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        nonrobust_dataset(source, noise(), steps=1, step_size=0.1, seed=0, batch_size=0)


# Runs that train through the store and construct through the store. Each is a process of its own, forked after the
# imports (which take longer than the runs), and dies by SIGKILL where its argument says: in the middle of an epoch, or
# while a piece is half written. It prints its steps, and the parent prints how it ended.
SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import torch, torch._dynamo
    from advfeat.experiments import tensor_files
    from advfeat.attacks import L2
    from advfeat.construct import random_target_dataset
    from advfeat.data import Dataset
    from advfeat.models import build_model
    from advfeat.experiments.store import Store
    from advfeat.train import train
    from advfeat.hyperparameters import TrainConfig

    torch.set_num_threads(1)
    whole_file = tensor_files.save_file

    def run(root, death):
        generator = torch.Generator().manual_seed(0)
        dataset = Dataset(
            images=torch.rand((40, 3, 12, 12), generator=generator),
            labels=torch.randint(10, (40,), generator=generator),
            classes=tuple("abcdefghij"),
            name="noise",
        )
        batches = []

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def count(module, inputs):
            batches.append(None)
            if death == "training" and len(batches) == 6:  # the second batch of the second epoch
                die()

        def evaluate(model):
            print("epoch", flush=True)
            return {}

        def fit(model, checkpoint):
            model.register_forward_pre_hook(count)
            config = TrainConfig(epochs=3, batch_size=10, lr=0.1, shift=1, flip=True)
            return train(model, dataset, config, seed=0, checkpoint=checkpoint, evaluate=evaluate)

        def save_file(tensors, path, **facts):
            whole_file(tensors, path, **facts)
            if "shard" in path.name or "dataset" in path.name:
                if death in path.name:
                    content = path.read_bytes()
                    path.write_bytes(content[: len(content) // 2])
                    die()
                print(path.name.split(".")[1], flush=True)

        def build(shards):
            return random_target_dataset(
                model, dataset, L2(0.5), steps=2, step_size=0.3, seed=0, batch_size=10, shards=shards
            )

        tensor_files.save_file = save_file
        store = Store(root)
        model, _ = store.model({"what": "source"}, build_model("resnet9", width=4, seed=0), fit)
        store.dataset({"what": "D_rand"}, build)

    for root, death in zip(sys.argv[1::2], sys.argv[2::2]):
        child = os.fork()
        if child == 0:
            run(root, death)
            os._exit(0)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)


def start(*runs: tuple[Path, str]) -> list[list[str]]:
    """Run one process after another; the output of each, with its exit status last."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(str(word) for run in runs for word in run)],
        env=os.environ | {"PYTHONPATH": str(Path(advfeat.__file__).parent.parent), "ADVFEAT_PROGRESS": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    parts = [part.split() for part in done.stdout.split("ended")]
    return [[*printed[index > 0 :], after[0]] for index, (printed, after) in enumerate(pairwise(parts))]


def content(root: Path, pattern: str) -> dict[str, str]:
    files = sorted(root.glob(pattern))
    assert files
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_killed_runs_go_on_and_end_with_the_bytes_of_one_that_was_not_killed(tmp_path):
    pieces = [f"shard-{row:08d}" for row in (0, 10, 20, 30)]
    sigkill = str(-signal.SIGKILL)
    whole, killed, halved = tmp_path / "whole", tmp_path / "killed", tmp_path / "halved"
    runs = start(
        (whole, "never"),
        (killed, "training"),  # dies in its second epoch
        (killed, pieces[2]),  # dies with half of the third piece written
        (killed, "dataset"),  # dies with half of the whole written
        (killed, "never"),
        (halved, pieces[1]),
    )
    assert (
        runs
        == [
            [*["epoch"] * 3, *pieces, "dataset", "0"],
            ["epoch", sigkill],
            ["epoch", "epoch", *pieces[:2], sigkill],  # two epochs were left
            [*pieces[2:], sigkill],  # the model is not trained again, and two pieces are taken up
            ["dataset", "0"],
            [*["epoch"] * 3, *pieces[:1], sigkill],
        ]
    )
    for pattern in ("datasets/*/dataset.safetensors", "datasets/*/dataset.json", "models/*/model.safetensors"):
        assert content(killed, pattern) == content(whole, pattern)
    assert not list(killed.glob("datasets/*/shard-*"))
    assert not list(killed.glob("models/*/checkpoint.pt"))
    (history,) = (json.loads(path.read_text()) for path in killed.glob("models/*/history.json"))
    assert [row["epoch"] for row in history] == [1, 2, 3]
    # A half-written piece has no final name.
    assert [path.name for path in halved.glob("datasets/*/*.safetensors")] == [f"{pieces[0]}.safetensors"]
    assert len(list(halved.glob(f"datasets/*/.{pieces[1]}*.part"))) == 1


def test_autoattack_of_a_dataset_goes_on_where_it_was_stopped(source, monkeypatch):
    # The attack is stood for by one that darkens an image by its own seed and size of piece.
    dataset, asked = noise(), []

    def attack(judge, images, labels, threat, *, seed, batch_size):
        asked.append((judge.dtype, len(images), threat, seed, batch_size))
        return images * 0.5

    monkeypatch.setattr(autoattack_module, "autoattack", attack)
    memory = Memory()
    found = autoattacked_dataset(source, dataset, L2(0.25), seed=3, batch_size=16, shards=memory)
    sizes = [min(16, len(dataset) - start) for start in range(0, len(dataset), 16)]
    assert asked == [(torch.float32, size, L2(0.25), 3, 16) for size in sizes]
    assert torch.equal(found.images, dataset.images * 0.5)
    assert torch.equal(found.labels, dataset.labels)
    assert found.info["threat"] == str(L2(0.25))
    del memory.pieces[16]
    autoattacked_dataset(source, dataset, L2(0.25), seed=3, batch_size=16, shards=memory)
    assert len(asked) == len(sizes) + 1
