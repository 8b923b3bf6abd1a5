"""The registry of data sets: each gives training and test images of one world, also a folder of a reader's own."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from advfeat import fashion_mnist
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


# Fashion-MNIST


def packed(numbers):
    """An array of bytes as an IDX file, packed."""
    head = b"\x00\x00\x08" + bytes([numbers.ndim]) + b"".join(size.to_bytes(4, "big") for size in numbers.shape)
    return gzip.compress(head + numbers.tobytes())


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """The four official files with two training images and one test image, and no copy of Debian's."""
    numbers = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    files = {
        "train-images-idx3-ubyte": numbers[:2], "train-labels-idx1-ubyte": np.array([9, 0], np.uint8),
        "t10k-images-idx3-ubyte": numbers[2:], "t10k-labels-idx1-ubyte": np.array([3], np.uint8),
    }  # fmt: skip
    place = tmp_path / "FashionMNIST" / "raw"
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / f"{name}.gz").write_bytes(packed(content))
        sum_of = hashlib.md5(gzip.decompress(packed(content)), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(fashion_mnist._FASHION_MNIST_MD5, name, sum_of)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path))
    return numbers


def test_fashion_mnist_is_padded_and_gray_on_three_channels(fashion):
    train, test = (DATASETS["fashion"].load(half, 2) for half in (True, False))
    assert train.labels.tolist() == [9, 0]
    assert test.labels.tolist() == [3]
    assert train.classes == test.classes
    assert (train.classes[0], train.classes[9], len(train.classes)) == ("T-shirt/top", "Ankle boot", 10)
    whole = torch.cat([train.images, test.images])
    assert whole.shape == (3, 3, SIDE, SIDE)
    assert torch.equal(whole[:, 0], whole[:, 1])
    assert torch.equal(whole[:, 0], whole[:, 2])
    assert torch.equal((whole[:, 0, 2:30, 2:30] * 255).round().byte(), torch.from_numpy(fashion))
    whole[:, :, 2:30, 2:30] = 0
    assert whole.max() == 0
    assert len(DATASETS["fashion"].load(True, 1)) == 1


def test_fashion_mnist_is_found_where_debian_keeps_it(fashion, tmp_path, monkeypatch):
    expected = DATASETS["fashion"].load(True, 2).fingerprint()
    (tmp_path / "FashionMNIST" / "raw").rename(tmp_path / "debian")
    assert DATASETS["fashion"].load(True, 2).fingerprint() == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_of_fashion_mnist_is_named(fashion, tmp_path, damage):
    path = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    changed = packed(np.array([9, 1], np.uint8))
    path.write_bytes({"flipped": changed, "cut": whole[:-9], "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"damaged: .*train-labels-idx1-ubyte\.gz .*put it there once more"):
        DATASETS["fashion"].load(True, 2)


def test_without_fashion_mnist_and_a_network_the_error_names_all_ways(fashion, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    (tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"four official \.gz files.*dataset-fashion-mnist.*run once with a network"
    ):
        DATASETS["fashion"].load(False, 1)


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package is not there")
def test_debians_files_are_the_official_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path))
    train, test = (DATASETS["fashion"].load(half, 60_000) for half in (True, False))
    assert train.labels.bincount().tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
