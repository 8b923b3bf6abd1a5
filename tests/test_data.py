"""Pixels and labels: a dataset's refusals, its fingerprint, the order of batches, augmentation by hand, files."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from advfeat.authors_release import load_authors_set
from advfeat.construct import random_target_dataset
from advfeat.data import Dataset, augment, batches
from advfeat.hyperparameters import TrainConfig
from advfeat.image_files import cifar10, data_root, image_folder, unit_range
from advfeat.measures import accuracy
from advfeat.models import build_model
from advfeat.threats import L2
from advfeat.train import train
from advfeat.whitening import whiten

pytestmark = pytest.mark.numbers


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
    """As for a reader: annotations are not checked outside of the tests, so the library's own messages appear."""
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
    assert "planted" in message  # and the way without both
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


def test_every_level_has_one_value_in_every_reader(tmp_path):
    """A product with 1/255 in one of them differs in the last bit of 126 levels: one picture, two fingerprints."""
    levels = torch.arange(256, dtype=torch.uint8)
    exact = torch.tensor([level / 255 for level in range(256)], dtype=torch.float64).float()
    assert torch.equal(unit_range(levels), exact)
    assert int((levels.float() * (1 / 255) != exact).sum()) > 100  # the other way is another one
    picture = levels.view(1, 16, 16).expand(3, -1, -1).contiguous()
    (tmp_path / "folder" / "one").mkdir(parents=True)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "folder" / "one" / "0.png")
    (tmp_path / "robust_CIFAR").mkdir()
    torch.save(picture[None], tmp_path / "robust_CIFAR" / "CIFAR_ims")
    torch.save(torch.tensor([0]), tmp_path / "robust_CIFAR" / "CIFAR_lab")
    read = [image_folder(tmp_path / "folder", size=16), load_authors_set("D_R", tmp_path)]
    assert read[0].fingerprint() == read[1].fingerprint()
    assert torch.equal(read[0].images[0, 0].flatten(), exact)


def test_a_number_is_scaled_in_a_copy():
    levels = torch.tensor([0.0, 255.0])
    assert unit_range(levels).tolist() == [0, 1]
    assert levels.tolist() == [0, 255]


def in_folder(root: Path, picture: Image.Image, name: str = "cat/0.png", **options: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def gray(level: int, mode: str, dtype: type) -> Image.Image:
    picture = Image.fromarray(np.full((4, 4), level, dtype=dtype))
    assert picture.mode == mode
    return picture


def painted(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (4, 4), colour)


def palette(transparent: bool) -> Image.Image:
    picture = painted("P", 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    if transparent:
        picture.info["transparency"] = 1
    return picture


HALF = 128 / 255  # opaque to this share
READ = {
    "16-bit gray": (gray(20000, "I;16", np.uint16), "0.png", [20000 / 65535] * 3),
    "16-bit white": (gray(65535, "I;16", np.uint16), "0.png", [1] * 3),
    "16-bit TIFF": (gray(20000, "I;16", np.uint16), "0.tif", [20000 / 65535] * 3),
    "1 bit": (painted("1", 1), "0.png", [1] * 3),
    "8-bit gray": (painted("L", 51), "0.png", [0.2] * 3),
    "palette": (palette(transparent=False), "0.png", [200 / 255, 100 / 255, 50 / 255]),
    "palette, transparent": (palette(transparent=True), "0.png", [1] * 3),
    "colour, opaque": (painted("RGBA", (10, 20, 30, 255)), "0.png", [10 / 255, 20 / 255, 30 / 255]),
    "colour, transparent": (painted("RGBA", (10, 20, 30, 0)), "0.png", [1] * 3),
    "colour, half": (painted("RGBA", (0, 0, 255, 128)), "0.png", [1 - HALF, 1 - HALF, 1]),
    "gray, half": (painted("LA", (0, 128)), "0.png", [1 - HALF] * 3),
    "four inks": (painted("CMYK", (255, 0, 0, 0)), "0.tif", [0, 1, 1]),
}


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_every_kind_of_picture_is_on_one_scale(tmp_path, case):
    picture, name, expected = case
    in_folder(tmp_path, picture, f"cat/{name}")
    pixels = image_folder(tmp_path, size=4).images[0]
    exact = torch.tensor(expected, dtype=torch.float64).float()[:, None, None].expand(3, 4, 4)
    # Only pixels half on white are rounded to a level.
    assert (pixels - exact).abs().max() <= (0.5 / 255 if picture.mode in ("LA", "RGBA") else 0)


def test_gray_maps_of_more_than_8_bits_are_scaled_by_their_own_highest_level(tmp_path):
    (tmp_path / "cat").mkdir()
    for number, white in enumerate((65535, 4095)):
        levels = np.full((4, 4), white // 5, dtype=">u2")
        (tmp_path / "cat" / f"{number}.pgm").write_bytes(b"P5 4 4 %d\n" % white + levels.tobytes())
    assert (image_folder(tmp_path, size=4).images - 0.2).abs().max() < 1e-4


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_a_picture_of_16_bits_is_that_of_8_bits_at_every_size(tmp_path, size):
    """257 times the level of 255 is the level of 65,535; torchvision rounds to levels when it resizes them."""
    levels = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    in_folder(tmp_path, Image.fromarray(levels), "a/0.png")
    in_folder(tmp_path, Image.fromarray(levels.astype(np.uint16) * 257), "b/0.png")
    eight, sixteen = image_folder(tmp_path, size=size).images
    assert torch.equal(eight, sixteen)
    assert float(eight.std()) > 0.05  # it is a picture


def png_of_16_bit_colours() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + np.full(12, 20000, ">u2").tobytes() for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["float", "32 bits", "colour of 16 bits"])
def test_what_has_no_scale_is_refused_by_name(tmp_path, kind):
    (tmp_path / "cat").mkdir()
    path = tmp_path / "cat" / ("0.png" if kind == "colour of 16 bits" else "0.tif")
    if kind == "float":
        Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(path)
    elif kind == "32 bits":
        Image.fromarray(np.full((4, 4), 20000, dtype=np.int32)).save(path)
    else:
        path.write_bytes(png_of_16_bit_colours())
    with pytest.raises(ValueError, match="save it with 8 bits") as caught:
        image_folder(tmp_path, size=4)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photograph_is_turned_as_its_camera_says(tmp_path, mode, orientation):
    levels = np.zeros((4, 4), dtype=np.uint16)
    levels[0] = 65535  # the upper edge, as it is stored
    picture = Image.fromarray(levels) if mode == "I;16" else Image.fromarray((levels // 257).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    in_folder(tmp_path, picture if mode == "I;16" else picture.convert("RGB"), exif=exif)
    seen = image_folder(tmp_path, size=4).images[0, 0]
    edge = {3: seen[-1], 6: seen[:, -1], 8: seen[:, 0]}[orientation]  # below, right, left
    assert edge.tolist() == [1] * 4
    assert float(seen.sum()) == 4


def test_what_programs_put_into_a_folder_is_no_class_and_no_image(tmp_path):
    picture = painted("RGB", (51, 51, 51))
    for name in ("cat/0.png", "dog/0.png"):
        in_folder(tmp_path, picture, name)
    clean = image_folder(tmp_path, size=4)
    for name in (
        ".ipynb_checkpoints/x.png", "__MACOSX/cat/x.png", ".git/x.png", "cat/.ipynb_checkpoints/0-checkpoint.png",
        "cat/._0.png", "dog/.thumbs/0.png", "dog/__MACOSX/0.png",
    ):  # fmt: skip
        in_folder(tmp_path, picture, name)
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "README.png").write_bytes(b"beside the classes")
    found = image_folder(tmp_path, size=4)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 1]
    assert found.fingerprint() == clean.fingerprint()


def test_a_folder_below_one_with_a_dot_is_read(tmp_path):
    in_folder(tmp_path / ".cache" / "images", painted("RGB", (0, 0, 0)))
    assert image_folder(tmp_path / ".cache" / "images", size=4).classes == ("cat",)


def test_a_test_folder_without_a_class_keeps_the_labels_of_training(tmp_path):
    for name in ("train/ant/0.png", "train/bee/0.png", "train/cat/0.png", "test/bee/0.png", "test/cat/0.png"):
        in_folder(tmp_path, painted("RGB", (0, 0, 0)), name)
    classes = image_folder(tmp_path / "train", size=4).classes
    test = image_folder(tmp_path / "test", size=4, classes=classes)
    assert test.classes == ("ant", "bee", "cat")
    assert test.labels.tolist() == [1, 2]
    (tmp_path / "test" / "ant").mkdir()  # empty: with named classes it moves nothing either
    assert image_folder(tmp_path / "test", size=4, classes=list(classes)).labels.tolist() == [1, 2]
    with pytest.raises(FileNotFoundError, match=r"no image in .*test.ant; remove folders that .* classes="):
        image_folder(tmp_path / "test", size=4)
    # In the order that is given, which need not be that of the alphabet.
    assert image_folder(tmp_path / "test", size=4, classes=("cat", "bee")).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (("ant", "bee"), ValueError, "has images of cat, but classes are ant, bee"),
        (("bee", "cat", "bee"), ValueError, "classes must name each class once, got 'bee', 'cat', 'bee'"),
        ((), ValueError, "has images of bee, cat, but classes are"),
        ("cat", TypeError, "classes must be a sequence of names, got the text 'cat'"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, classes, error, message):
    for name in ("bee/0.png", "cat/0.png"):
        in_folder(tmp_path, painted("RGB", (0, 0, 0)), name)
    with pytest.raises(error, match=message):
        image_folder(tmp_path, size=4, classes=classes)


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.bmp", "0.tif", "0.webp"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6])
def test_half_a_picture_is_named(tmp_path, name, kept):
    levels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    in_folder(tmp_path, painted("RGB", (0, 0, 0)), "cat/whole.png")
    path = in_folder(tmp_path, Image.fromarray(levels), f"dog/{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"is no whole image that can be read .* take it away") as caught:
        image_folder(tmp_path, size=4)
    assert str(path) in str(caught.value)


BATCHES = ("data_batch_1", "data_batch_2", "test_batch")


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch) -> Path:
    """Batches of two images, with MD5 sums of their own; a download is never asked for unawares."""
    from torchvision.datasets.cifar import CIFAR10

    folder, sums = tmp_path / "cifar-10-batches-py", {}
    folder.mkdir()
    contents = {name: {"data": np.full((2, 3072), 51, np.uint8), "labels": [0, 9]} for name in BATCHES}
    for name, content in {**contents, "batches.meta": {"label_names": list(CIFAR10.train_list[0])}}.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:2]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})

    def download(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    return tmp_path


@pytest.mark.parametrize("train_split", [True, False])
@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
@pytest.mark.parametrize("fault", ["flipped bit", "half", "empty", "a folder"])
def test_a_damaged_file_of_cifar10_is_named_and_not_written_over(small_cifar10, name, fault, train_split, monkeypatch):
    assert len(cifar10(train=train_split, root=small_cifar10)) == (4 if train_split else 2)
    monkeypatch.setattr(
        "torchvision.datasets.cifar.download_and_extract_archive", lambda *_, **__: pytest.fail("downloaded")
    )
    path = small_cifar10 / "cifar-10-batches-py" / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    if fault == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"flipped bit": content, "half": content[: len(content) // 2], "empty": b""}[fault])
    if name == "batches.meta" and fault == "a folder" and train_split:
        (small_cifar10 / "cifar-10-python.tar.gz").touch()  # an archive that is not whole is no help
    with pytest.raises(ValueError, match=rf"damaged in .*cifar-10-batches-py: {name} \(the MD5 sum is not") as caught:
        cifar10(train=train_split, root=small_cifar10)
    assert "once more, or delete that folder" in str(caught.value)


@pytest.mark.parametrize("name", [*BATCHES, "batches.meta"])
def test_a_missing_file_of_cifar10_is_named(small_cifar10, name):
    (small_cifar10 / "cifar-10-batches-py" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"of the files in cifar-10-batches-py/ {name} are missing"):
        cifar10(train=True, root=small_cifar10)


def test_a_file_of_cifar10_that_may_not_be_read_is_named(small_cifar10, monkeypatch):
    def refuse(path: str, *_: object) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("torchvision.datasets.utils.calculate_md5", refuse)
    with pytest.raises(PermissionError, match="data_batch_1"):
        cifar10(train=True, root=small_cifar10)


def test_what_a_kill_while_unpacking_left_is_unpacked_again(small_cifar10, monkeypatch):
    """The archive is whole then, so no network is needed."""
    from torchvision.datasets.cifar import CIFAR10

    path = small_cifar10 / "cifar-10-batches-py" / "data_batch_2"
    whole = path.read_bytes()
    archive = small_cifar10 / CIFAR10.filename
    archive.write_bytes(b"all of it")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(b"all of it").hexdigest())
    monkeypatch.setattr(
        "torchvision.datasets.cifar.download_and_extract_archive", lambda *_, **__: path.write_bytes(whole)
    )
    path.write_bytes(whole[:100])
    assert len(cifar10(train=True, root=small_cifar10)) == 4
