"""ImageNet's layout on generated pictures: which folders count, as which class, with which logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from advfeat.confidence import auroc, confidences
from advfeat.experiments.datasets import DATASETS
from advfeat.experiments.run import Run
from advfeat.imagenet import (
    IMAGENET_A_CLASSES,
    RESTRICTED_IMAGENET,
    RestrictedLogits,
    imagenet_a,
    imagenet_o,
    restricted_imagenet,
    wordnet_ids,
)
from advfeat.measures import accuracy, predictions
from advfeat.streamed import StreamedDataset

IDS = [f"n{10_000_000 + 7 * number:08d}" for number in range(1000)]
"""Made up; only their order counts."""


def picture(path, number, row=0):
    """A JPEG of one colour that tells the number of its class: red · 32 + green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (8 * (number // 32) + 4, 8 * (number % 32) + 4, 20 * row)
    Image.fromarray(np.full((40, 48, 3), colour, np.uint8)).save(path, quality=100, subsampling=0)


def told(images):
    """The numbers that the colours of images tell."""
    red, green = ((images[:, channel].mean((1, 2)) * 255 / 8).floor().long() for channel in (0, 1))
    return 32 * red + green


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """All 1,000 folders, with pictures in the first and the last class of each range and in the classes beside it."""
    root = tmp_path_factory.mktemp("imagenet")
    edges = {place for ends in RESTRICTED_IMAGENET.values() for end in ends for place in (end - 1, end, end + 1)}
    for half, count in (("train", 2), ("val", 1)):
        for number, name in enumerate(IDS):
            (root / half / name).mkdir(parents=True)
            for row in range(count if number in edges or number < 4 else 0):
                picture(root / half / name / f"{name}_{row}.JPEG", number, row)
    (root / "train" / ".cache").mkdir()
    (root / "train" / "notes").mkdir()
    return root


def test_the_ranges_hold_as_many_classes_as_the_code_of_the_authors():
    counts = {name: last - first + 1 for name, (first, last) in RESTRICTED_IMAGENET.items()}
    assert counts == {"dog": 118, "cat": 5, "frog": 3, "turtle": 5, "bird": 21, "monkey": 18, "fish": 9, "crab": 4,
                      "insect": 20}  # fmt: skip
    numbers = [number for first, last in RESTRICTED_IMAGENET.values() for number in range(first, last + 1)]
    assert len(numbers) == len(set(numbers)) == 203


@pytest.mark.parametrize("train", [True, False])
def test_restricted_imagenet_takes_both_ends_of_each_range_and_nothing_beside(imagenet, tmp_path, train):
    found = restricted_imagenet(imagenet, train=train, size=16, into=tmp_path)
    assert isinstance(found, StreamedDataset)
    assert found.classes == tuple(RESTRICTED_IMAGENET)
    numbers = told(found.in_memory().images)
    ends = {end: label for label, ends in enumerate(RESTRICTED_IMAGENET.values()) for end in ends}
    inside = {
        place: label
        for label, (first, last) in enumerate(RESTRICTED_IMAGENET.values())
        for place in range(first, last + 1)
        if any(abs(place - end) <= 1 for end in ends)
    }
    assert found.labels.tolist() == [inside[number] for number in numbers.tolist()]
    assert sorted(numbers.tolist()) == sorted(list(inside) * (2 if train else 1))
    assert set(ends) <= set(numbers.tolist())


def test_a_part_of_the_folders_is_refused_unless_a_list_tells_their_places(imagenet, tmp_path):
    for place in (30, 31, 281, 500):
        picture(tmp_path / "part" / "train" / IDS[place] / "1.JPEG", place)
    with pytest.raises(FileNotFoundError, match=r"its 1000 classes.*, got .*4 in train/, 0 in val/"):
        restricted_imagenet(tmp_path / "part", train=True, size=16, into=tmp_path)
    (tmp_path / "part" / "LOC_synset_mapping.txt").write_text("\n".join(f"{name} a, b" for name in reversed(IDS)))
    assert wordnet_ids(tmp_path / "part") == wordnet_ids(imagenet) == IDS
    found = restricted_imagenet(tmp_path / "part", train=True, size=16, into=tmp_path)
    assert sorted(zip(found.labels.tolist(), told(found.in_memory().images).tolist(), strict=True)) == [
        (1, 281), (2, 30), (2, 31),
    ]  # fmt: skip
    (tmp_path / "part" / "LOC_synset_mapping.txt").write_text("n00000001 a")
    with pytest.raises(FileNotFoundError, match=r"1 in LOC_synset_mapping\.txt"):
        wordnet_ids(tmp_path / "part")


def test_a_copy_without_any_of_the_classes_is_refused(tmp_path):
    for name in IDS:
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no picture in .*train"):
        restricted_imagenet(tmp_path, train=True, size=16, into=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root must hold classes of Restricted ImageNet, but .*val has none"):
        restricted_imagenet(tmp_path, train=False, size=16, into=tmp_path)


TINY = {
    "train_images": 60, "test_images": 20, "network": "cnn4", "width": 8, "source_width": 8, "eval_images": 10,
    "construct_steps": 2, "construct_step_size": 0.5, "match_images": 40, "match_steps": 2, "match_sweep": [1],
    "watch_images": 10, "watch_steps": 1,
    **{name: {"epochs": 1, "batch_size": 10, "precision": "float32"}
       for name in ("standard", "robust", "match_source", "on_rand", "on_det", "on_matched")},
}  # fmt: skip


@pytest.mark.numbers
def test_the_profile_runs_from_the_folder_to_the_accuracies(imagenet, tmp_path, monkeypatch):
    """The whole of Table 1 and of the matched sets at toy scale; every set of training images stays in a file."""
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet").symlink_to(imagenet)
    run = Run("restricted-imagenet", device="cpu", overrides=TINY)
    assert run.train_set.images.shape[1:] == (3, DATASETS["restricted-imagenet"].side, 64)
    assert len(run.train_set) == 60
    assert run.describe()["fingerprint"] == run.train_set.fingerprint()
    for kind in ("D_rand", "D_det", "D_R", "D_NR"):
        made = run.constructed(kind, source_seed=0)
        assert isinstance(made, StreamedDataset)
        assert made.images.path.is_relative_to(run.store.root)
        trained = run.trained_on(kind, source_seed=0, seed=0)
        assert accuracy(trained.model, run.test_set).n == len(run.test_set)
    assert not isinstance(run.test_set, StreamedDataset)
    again = Run("restricted-imagenet", device="cpu", overrides=TINY)
    assert (
        again.constructed("D_det", source_seed=0).fingerprint() == run.constructed("D_det", source_seed=0).fingerprint()
    )


def test_any_folder_of_pictures_is_streamed_likewise(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "pets"))
    for half, names in (("train", ("cats", "dogs")), ("test", ("dogs",))):
        for name in names:
            for row in range(4):
                picture(tmp_path / "pets" / half / name / f"{row}.png", 100 * (name == "dogs"), row)
    train, test = (DATASETS["streamed-folder"].load(half, 6) for half in (True, False))
    assert train.images.shape == (6, 3, 64, 64)
    assert train.classes == test.classes == ("cats", "dogs")
    assert train.name == "pets"
    assert torch.equal(told(train.in_memory().images) == 100, train.labels == 1)
    assert test.labels.tolist() == [1] * 4  # a class without a test image moves no label


# ImageNet-A and -O


class Told(nn.Module):
    """Answers with the class that the colour tells; sure of itself where ``sure`` says so, and with one foreign class
    that is always larger."""

    def __init__(self, sure, loud=None):
        super().__init__()
        self.sure, self.loud = sure, loud

    def forward(self, images):
        numbers = told(images)
        logits = torch.zeros(len(images), 1000)
        rows = torch.arange(len(images))
        logits[rows, numbers] = torch.tensor([9.0 if self.sure(int(number)) else 0.5 for number in numbers])
        if self.loud is not None:
            logits[:, self.loud] = 20.0
        return logits


def test_the_classes_of_imagenet_a_are_200_in_increasing_order():
    assert len(set(IMAGENET_A_CLASSES)) == 200
    assert list(IMAGENET_A_CLASSES) == sorted(IMAGENET_A_CLASSES)
    assert (IMAGENET_A_CLASSES[0], IMAGENET_A_CLASSES[-1], sum(IMAGENET_A_CLASSES)) == (6, 988, 102_178)


def test_imagenet_a_counts_only_its_own_logits(tmp_path):
    for number in IMAGENET_A_CLASSES:
        picture(tmp_path / "imagenet-a" / IDS[number] / "1.jpg", number)
    found = imagenet_a(tmp_path / "imagenet-a", into=tmp_path, size=32)
    assert found.num_classes == 200
    assert [IMAGENET_A_CLASSES[label] for label in found.labels] == told(found.in_memory().images).tolist()
    foreign = next(number for number in range(1000) if number not in IMAGENET_A_CLASSES)
    network = Told(lambda _: True, loud=foreign).eval()
    assert accuracy(RestrictedLogits(network, IMAGENET_A_CLASSES), found).value == 1
    assert set(predictions(network, found).tolist()) == {foreign}
    with pytest.raises(FileNotFoundError, match=r"path must hold 200 folders nXXXXXXXX, got .* with 0"):
        imagenet_a(tmp_path, into=tmp_path)


def test_imagenet_o_stands_beside_the_validation_images_of_its_classes(imagenet, tmp_path):
    chosen = (2, 29, 150, 282)
    for number in chosen:
        for row in range(3):
            picture(tmp_path / "imagenet-o" / IDS[number] / f"{row}.JPEG", 600 + number, row)
    out, inside, classes = imagenet_o(tmp_path / "imagenet-o", imagenet=imagenet, into=tmp_path / "kept", size=32)
    assert classes == chosen
    assert len(out) == 12
    assert sorted(told(inside.in_memory().images).tolist()) == [2, 29, 150, 282]
    assert out.classes == inside.classes == tuple(IDS[number] for number in chosen)
    network = RestrictedLogits(Told(lambda number: number < 600).eval(), classes)
    scores = [-confidences(network, of)[0] for of in (out, inside)]
    assert auroc(*scores) == 1
    picture(tmp_path / "imagenet-o" / "n99999999" / "1.JPEG", 3)
    with pytest.raises(ValueError, match=r"path must hold folders nXXXXXXXX of classes of ImageNet, got .*n99999999"):
        imagenet_o(tmp_path / "imagenet-o", imagenet=imagenet, into=tmp_path / "kept")


def test_restricted_logits_refuse_classes_that_are_not_there():
    network = Told(lambda _: True).eval()
    for classes in ((), (3, 3)):
        with pytest.raises(ValueError, match="classes must be different numbers, one or more"):
            RestrictedLogits(network, classes)
    with pytest.raises(ValueError, match="model has 1000 logits, but classes go up to 1000"):
        RestrictedLogits(network, (3, 1000))(torch.zeros(1, 3, 4, 4))
    assert RestrictedLogits(network, (5, 2))(torch.zeros(1, 3, 4, 4)).shape == (1, 2)
    assert not RestrictedLogits(network, (5, 2)).training
