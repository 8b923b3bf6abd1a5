"""Pixels and labels: what a dataset refuses, its fingerprint, the order of batches, augmentation by hand, files."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from advfeat.attacks import L2
from advfeat.construct import random_target_dataset
from advfeat.data import Dataset, augment, batches, cifar10, data_root, image_folder
from advfeat.measures import accuracy
from advfeat.models import build_model, whiten
from advfeat.train import TrainConfig, train


def made(n: int = 10, classes: int = 3, size: int = 5, **changes: object) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    fields = {
        "images": torch.rand((n, 3, size, size), generator=generator),
        "labels": torch.randint(classes, (n,), generator=generator),
        "classes": tuple("abcdefghij"[:classes]),
        "name": "made",
        "truth": {"row": torch.arange(n)},
        "info": {"seed": 0},
    }
    return Dataset(**(fields | changes))


@pytest.fixture
def unchecked_shapes():
    """What a reader gets: annotations are not checked outside of the tests, so the library's own messages appear."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_a_dataset_knows_its_size_and_classes():
    dataset = made(n=7, classes=3)
    assert len(dataset) == 7
    assert dataset.num_classes == 3
    assert len(made(n=0)) == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(10, 3, 5, 5, dtype=torch.float64)}, TypeError, "images must be float32"),
        ({"images": torch.zeros(10, 3, 5, 5, dtype=torch.uint8)}, TypeError, "images must be float32"),
        ({"labels": torch.zeros(10, dtype=torch.int32)}, TypeError, "labels must be int64"),
        ({"labels": torch.zeros(10)}, TypeError, "labels must be int64"),
        ({"images": torch.zeros(10, 1, 5, 5)}, ValueError, r"got \(10, 1, 5, 5\)"),
        ({"images": torch.zeros(10, 75)}, ValueError, r"got \(10, 75\)"),
        ({"images": torch.zeros(9, 3, 5, 5)}, ValueError, "labels has 10 rows for 9 images"),
        ({"truth": {"shape": torch.zeros(4)}}, ValueError, "shape has 4 rows for 10 images"),
        ({"images": torch.full((10, 3, 5, 5), 1.001)}, ValueError, r"must lie in \[0, 1\]"),
        ({"images": torch.full((10, 3, 5, 5), -1e-6)}, ValueError, r"must lie in \[0, 1\]"),
        ({"images": torch.full((10, 3, 5, 5), torch.nan)}, ValueError, r"must lie in \[0, 1\]"),
        ({"labels": torch.full((10,), 3)}, ValueError, r"labels must lie in \[0, 3\), got 3 to 3"),
        ({"labels": torch.full((10,), -1)}, ValueError, r"labels must lie in \[0, 3\), got -1 to -1"),
    ],
)
def test_a_dataset_refuses_what_it_cannot_be(unchecked_shapes, changes, error, message):
    with pytest.raises(error, match=message):
        made(**changes)


def test_one_nan_among_many_pixels_is_found():
    images = torch.rand(10, 3, 5, 5)
    images[7, 1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        made(images=images)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(2, 5), [2, 3, 4]),
        (torch.tensor([4, 4, 0]), [4, 4, 0]),
        (torch.arange(10) % 3 == 0, [0, 3, 6, 9]),
        (slice(0, 100), list(range(10))),
    ],
    ids=["slice", "integers", "mask", "longer slice"],
)
def test_a_subset_keeps_images_labels_and_truth_together(index, rows):
    dataset = made()
    part = dataset.subset(index)
    assert part.truth["row"].tolist() == rows
    assert torch.equal(part.images, torch.stack([dataset.images[row] for row in rows]))
    assert part.labels.tolist() == [int(dataset.labels[row]) for row in rows]
    assert (part.classes, part.name, part.info) == (dataset.classes, dataset.name, dataset.info)


def test_rows_of_each_class():
    dataset = made(n=9, labels=torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2]))
    assert dataset.of_each_class(2).tolist() == [[0, 1, 2], [5, 4, 3]]
    with pytest.raises(ValueError, match="fewer than 4 images of a, b, c"):
        dataset.of_each_class(4)


def test_the_fingerprint_is_the_hash_of_shape_pixels_and_labels():
    dataset = made(n=6)
    expected = hashlib.sha256(b"(6, 3, 5, 5)")
    expected.update(np.ascontiguousarray(dataset.images.numpy()).tobytes())
    expected.update(dataset.labels.numpy().astype("<i8").tobytes())
    assert dataset.fingerprint() == expected.hexdigest()
    # Names and truth are not data, and neither is the order of the axes in memory.
    assert dataset.replace(name="other", truth={}).fingerprint() == dataset.fingerprint()
    channels_last = dataset.images.contiguous(memory_format=torch.channels_last)
    assert dataset.replace(images=channels_last).fingerprint() == dataset.fingerprint()


def test_the_fingerprint_changes_with_one_pixel_one_label_and_the_order():
    dataset = made()
    images, labels = dataset.images.clone(), dataset.labels.clone()
    images[9, 2, 4, 4] = torch.nextafter(images[9, 2, 4, 4], torch.tensor(0.5))
    labels[9] = (labels[9] + 1) % 3
    others = [
        dataset.replace(images=images),
        dataset.replace(labels=labels),
        dataset.subset(torch.arange(9, -1, -1)),
        dataset.subset(slice(0, 9)),
        dataset.replace(images=dataset.images.transpose(2, 3)),
    ]
    assert len({dataset.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_batches_come_in_order_or_in_a_drawn_one():
    dataset = made(n=10)
    assert [len(labels) for _, labels in batches(dataset, batch_size=4)] == [4, 4, 2]
    assert [len(labels) for _, labels in batches(dataset, batch_size=4, drop_last=True)] == [4, 4]
    assert torch.equal(torch.cat([images for images, _ in batches(dataset, batch_size=4)]), dataset.images)

    def epoch(generator: torch.Generator) -> Tensor:
        return torch.cat([images for images, _ in batches(dataset, batch_size=3, generator=generator)])

    first, second = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    shuffled = epoch(first)
    assert torch.equal(shuffled, epoch(second))
    assert not torch.equal(shuffled, epoch(first))  # the next epoch has another order
    # Every image once: sort by the first pixel, which no two images share.
    assert torch.equal(shuffled[shuffled[:, 0, 0, 0].argsort()], dataset.images[dataset.images[:, 0, 0, 0].argsort()])
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        next(batches(dataset, batch_size=0))


def test_a_shuffled_batch_keeps_label_and_image_together():
    dataset = made(n=10)
    labels_of = {float(image[0, 0, 0]): int(label) for image, label in zip(dataset.images, dataset.labels, strict=True)}
    for images, labels in batches(dataset, batch_size=4, generator=torch.Generator().manual_seed(1)):
        assert [labels_of[float(image[0, 0, 0])] for image in images] == labels.tolist()


def views(image: np.ndarray, shift: int, flip: bool) -> list[np.ndarray]:
    """Every crop of the reflected image, mirrored ones after the plain ones: slicing by hand."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="reflect")
    span = range(2 * shift + 1)
    crops = [padded[:, top : top + height, left : left + width] for top in span for left in span]
    return crops + [crop[:, :, ::-1] for crop in crops] if flip else crops


@pytest.mark.parametrize(("shift", "flip"), [(2, True), (3, False), (0, True)])
def test_augment_shifts_and_mirrors_like_slicing_by_hand(shift, flip):
    image = torch.rand((3, 6, 7), generator=torch.Generator().manual_seed(0))
    candidates = views(image.numpy(), shift, flip)
    count = 120 * len(candidates)
    changed = augment(
        image.expand(count, -1, -1, -1), generator=torch.Generator().manual_seed(1), shift=shift, flip=flip
    )
    keys = {candidate.tobytes(): place for place, candidate in enumerate(candidates)}
    assert len(keys) == len(candidates)
    # Every result is one of the candidates to the bit, and each is drawn equally often: chi-square with
    # len - 1 degrees of freedom stays within 4 standard deviations of its mean.
    drawn = np.bincount([keys[np.ascontiguousarray(view).tobytes()] for view in changed.numpy()], minlength=len(keys))
    chi_square = float(((drawn - 120) ** 2 / 120).sum())
    freedom = len(keys) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_augment_treats_every_image_with_its_own_pixels():
    dataset = made(n=40, size=8)
    changed = augment(dataset.images, generator=torch.Generator().manual_seed(3), shift=2, flip=True)
    for image, view in zip(dataset.images.numpy(), changed.numpy(), strict=True):
        assert any(np.array_equal(view, candidate) for candidate in views(image, 2, flip=True))


def test_augment_is_reproducible_and_can_do_nothing():
    images = made().images
    runs = [augment(images, generator=torch.Generator().manual_seed(s), shift=1, flip=True) for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(augment(images, generator=torch.Generator()), images)
    for shift in (-1, 5):
        with pytest.raises(ValueError, match=rf"shift must be in \[0, 5\), got {shift}"):
            augment(images, generator=torch.Generator(), shift=shift)


def test_image_folder_reads_labels_from_folders_and_pixels_from_files(tmp_path):
    random = np.random.default_rng(0)
    pixels = {name: random.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8) for name in ("ant", "bee")}
    for name, images in pixels.items():
        (tmp_path / name).mkdir()
        for place, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{place}.png")
    Image.fromarray(np.zeros((12, 24, 3), dtype=np.uint8)).save(tmp_path / "bee" / "wide.png")
    dataset = image_folder(tmp_path, size=6, name="insects")
    assert dataset.classes == ("ant", "bee")
    assert dataset.name == "insects"
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    expected = np.concatenate([pixels["ant"], pixels["bee"]]).transpose(0, 3, 1, 2).astype(np.float64) / 255
    # Images that have the size already keep their pixels. A division by 255 may be a product with 1/255, which is
    # rounded once more.
    assert np.abs(dataset.images[:4].numpy() - expected).max() <= 2 * 2**-24
    assert dataset.images.shape == (5, 3, 6, 6)  # the wide one was resized and cropped


def test_image_folder_refuses_what_is_not_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="one sub-folder per class"):
        image_folder(tmp_path / "missing", size=4)
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path, size=4)
    with pytest.raises(ValueError, match="size must be a positive number of pixels, got 0"):
        image_folder(tmp_path, size=0)


def test_the_data_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("ADVFEAT_DATA")
    assert data_root().name == "data"


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_without_data_and_network_the_error_names_both_ways(monkeypatch, tmp_path, error):
    def no_download(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_download)
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        cifar10(train=True)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "set ADVFEAT_DATA" in message  # the first way
    assert "with a network" in message  # the second
    assert "planted" in message  # and what needs neither
    assert caught.value.__cause__ is error


def test_two_downloads_at_once_are_one(monkeypatch, tmp_path):
    downloads, looked = [], threading.Barrier(2)

    class Files:
        """CIFAR-10 as torchvision reads it: a download takes a while."""

        def __init__(self, root, *, train, download):
            assert train
            there = Path(root) / "there"
            if not there.exists():
                if not download:
                    looked.wait()
                    raise RuntimeError("Dataset not found or corrupted.")
                downloads.append(root)
                time.sleep(0.3)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.touch()
            self.data, self.targets = np.zeros((2, 32, 32, 3), np.uint8), [0, 1]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Files)
    folder = tmp_path / "not" / "there"
    with ThreadPoolExecutor() as pool:
        found = [future.result() for future in [pool.submit(cifar10, train=True, root=folder) for _ in range(2)]]
    assert [len(dataset) for dataset in found] == [2, 2]
    assert downloads == [str(folder)]
    # Where nothing is to be downloaded, nothing is written: the folder may be another person's.
    (tmp_path / "there").touch()
    cifar10(train=True, root=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"not", "there"}


@pytest.fixture
def real_cifar10() -> Path:
    folder = Path(os.environ.get("ADVFEAT_DATA", ""))
    if not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip("ADVFEAT_DATA does not name a folder that holds cifar-10-batches-py/")
    return folder


@pytest.mark.cifar10
def test_cifar10_is_the_official_one(real_cifar10):
    from torchvision.datasets import CIFAR10

    for train_split, count in ((True, 50_000), (False, 10_000)):
        ours = cifar10(train=train_split)
        official = CIFAR10(str(real_cifar10), train=train_split)  # raises where an MD5 sum is wrong
        expected = hashlib.sha256(f"({count}, 3, 32, 32)".encode())
        for start in range(0, count, 10_000):
            block = official.data[start : start + 10_000].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
            expected.update(np.ascontiguousarray(block).tobytes())
        expected.update(np.asarray(official.targets, dtype="<i8").tobytes())
        assert ours.fingerprint() == expected.hexdigest()
        assert ours.classes == tuple(official.classes)
        assert ours.info == {"dataset": "cifar10", "split": "train" if train_split else "test"}


@pytest.mark.cifar10
def test_the_pipeline_runs_on_the_first_real_images(real_cifar10):
    images, held_out = cifar10(train=True).subset(slice(0, 300)), cifar10(train=False).subset(slice(0, 100))
    config = TrainConfig(epochs=1, batch_size=50, lr=0.1, shift=2, flip=True)
    source = build_model("resnet9", width=8, seed=0)
    whiten(source, images.images)
    (row,) = train(source, images, config, seed=0)
    assert row["epoch"] == 1
    constructed = random_target_dataset(source, images, L2(0.5), steps=2, step_size=0.25, seed=0)
    distance = (constructed.images.double() - images.images.double()).flatten(1).norm(dim=1)
    assert float(distance.max()) <= 0.5 * (1 + 1e-5)
    fresh = build_model("resnet9", width=8, seed=1)
    whiten(fresh, constructed.images)
    train(fresh, constructed, config, seed=1)
    estimate = accuracy(fresh, held_out)
    assert estimate.n == 100
    assert estimate.low <= estimate.value <= estimate.high
