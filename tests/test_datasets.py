"""The registry of data sets: each gives training and test images of one world, also a folder of a reader's own."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from advfeat.experiments import datasets
from advfeat.experiments.datasets import DATASETS, SIDE
from advfeat.experiments.profiles import PROFILES
from advfeat.planted import PlantedWorld, planted


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of six training images and two test images, told apart by their level."""
    for half, count in (("train", 6), ("test", 2)):
        for number, name in enumerate(("cats", "dogs")):
            place = tmp_path / "pets" / half / name
            place.mkdir(parents=True)
            for row in range(count):
                Image.new("RGB", (40, 36), (100 * number, row, 0)).save(place / f"{row}.png")
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "pets"))
    return tmp_path / "pets"


def test_every_profile_names_one():
    assert {profile.data.name for profile in PROFILES.values()} <= set(DATASETS)


def test_planted_and_cifar10_are_what_the_loaders_give(monkeypatch):
    for train, seed in ((True, 1), (False, 2)):
        expected = planted(PlantedWorld(), 12, seed=seed)
        assert DATASETS["planted"].load(train, 12).fingerprint() == expected.fingerprint()
    halves = {train: planted(PlantedWorld(), 20, seed=int(train)) for train in (True, False)}
    monkeypatch.setattr(datasets, "cifar10", lambda *, train: halves[train])
    for train, half in halves.items():
        assert torch.equal(DATASETS["cifar10"].load(train, 7).images, half.images[:7])


def test_a_folder_gives_both_halves_in_an_order_that_mixes_the_classes(folder):
    train, test = (DATASETS["folder"].load(half, count) for half, count in ((True, 12), (False, 4)))
    assert train.images.shape == (12, 3, SIDE, SIDE)
    assert train.classes == test.classes == ("cats", "dogs")
    assert train.name == "pets"
    level = (train.images[:, 0, 0, 0] * 255).round().long()
    assert torch.equal(level, 100 * train.labels)  # each image has kept its label
    assert sorted(train.labels.tolist()) == [0] * 6 + [1] * 6
    assert train.labels.tolist() != sorted(train.labels.tolist())
    few = DATASETS["folder"].load(True, 5)
    assert torch.equal(few.images, train.images[:5])


def test_a_class_without_a_test_image_moves_no_label(folder):
    for image in (folder / "test" / "cats").iterdir():
        image.unlink()
    assert DATASETS["folder"].load(False, 2).labels.tolist() == [1, 1]


def test_a_folder_that_is_too_small_or_not_there_is_named(folder, monkeypatch):
    with pytest.raises(ValueError, match=r"train_images=13 must be at most 12, the images in .*pets/train"):
        DATASETS["folder"].load(True, 13)
    monkeypatch.setenv("ADVFEAT_DATA", str(folder / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"one sub-folder per class, got .*nowhere/train"):
        DATASETS["folder"].load(True, 1)
