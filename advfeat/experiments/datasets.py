"""The data sets that a profile can name, one entry each: the first training and test images of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from advfeat.data import Dataset
from advfeat.fashion_mnist import fashion_mnist
from advfeat.image_files import cifar10, data_root, image_folder
from advfeat.imagenet import restricted_imagenet
from advfeat.planted import PlantedWorld, planted
from advfeat.streamed import StreamedDataset
from advfeat.streamed_folders import streamed_classes, streamed_folder

SIDE = 32
"""Height and width of images in memory, in pixels. Step sizes and networks of the profiles are chosen for it."""
STREAMED_SIDE = 64
"""The same for images that stay in a file; the networks of the profiles have stems for small images."""


@dataclass(frozen=True)
class ImageSource:
    """Where the images of a data set come from.

    Attributes:
        load: ``load(train, count)`` gives the first ``count`` training or test images, or as many as there are.
        from_files: whether they are read from files, which may be missing or damaged.
        side: height and width of the images, in pixels.
        varies: whether other images may lie under the same name elsewhere; records then hold their fingerprint.
    """

    load: Callable[[bool, int], Dataset]
    from_files: bool = True
    side: int = SIDE
    varies: bool = False


def _planted(train: bool, count: int) -> Dataset:
    # Two streams of one world: the features are the same, the images are not.
    return planted(PlantedWorld(), count, seed=1 if train else 2)


def _cifar10(train: bool, count: int) -> Dataset:
    return cifar10(train=train).subset(slice(0, count))


def _fashion(train: bool, count: int) -> Dataset:
    return fashion_mnist(train=train).subset(slice(0, count))


def _folder(train: bool, count: int) -> Dataset:
    """``train/`` and ``test/`` in the folder of raw data, with a sub-folder per class each."""
    root = data_root()
    classes = image_folder(root / "train", size=SIDE, name=root.name).classes if not train else None
    found = image_folder(root / ("train" if train else "test"), size=SIDE, name=root.name, classes=classes)
    if len(found) < count:
        half = "train" if train else "test"
        raise ValueError(f"{half}_images={count} must be at most {len(found)}, the images in {root / half}")
    # They are sorted by class, so the first ones would all be of the first classes.
    return found.subset(torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:count])


def _restricted_imagenet(train: bool, count: int) -> Dataset:
    """The folder ``imagenet`` in the folder of raw data, or that folder itself."""
    root = data_root() / "imagenet" if (data_root() / "imagenet").exists() else data_root()
    found = restricted_imagenet(root, train=train, size=STREAMED_SIDE, into=data_root() / "packed")
    return _first(found, train, count)


def _streamed_folder(train: bool, count: int) -> Dataset:
    """As ``folder``, but in a file: for more pictures than memory holds."""
    place, names = data_root(), streamed_classes(data_root() / "train")
    half = "train" if train else "test"
    numbers = {name: label for label, name in enumerate(names)}
    into = place / "packed"
    found = streamed_folder(place / half, size=STREAMED_SIDE, into=into, classes=numbers, name=place.name)
    return _first(found, train, count)


def _first(found: StreamedDataset, train: bool, count: int) -> Dataset:
    """Training images stay in their file; test images are attacked, and so are held in memory."""
    few = found.subset(slice(0, count))
    return few if train else few.in_memory()


DATASETS: dict[str, ImageSource] = {
    "planted": ImageSource(_planted, from_files=False),
    "cifar10": ImageSource(_cifar10),
    "fashion": ImageSource(_fashion),
    "folder": ImageSource(_folder, varies=True),
    "streamed-folder": ImageSource(_streamed_folder, side=STREAMED_SIDE, varies=True),
    "restricted-imagenet": ImageSource(_restricted_imagenet, side=STREAMED_SIDE, varies=True),
}
"""Name, as a profile's ``data`` has it → where its images come from."""


def held_out(name: str, *, train_images: int, begin: int, count: int) -> tuple[Dataset, Dataset]:
    """The first ``train_images`` training images of a data set, and the ``count`` from ``begin`` on, to be judged on.

    Both are of one load: the first images of a longer draw need not be those of a shorter one.

    Raises:
        ValueError: there are not as many training images.
    """
    both = DATASETS[name].load(True, begin + count)
    if len(both) < begin + count:
        raise ValueError(
            f"held_out_from={begin} and test_images={count} must be at most {len(both)} together, the training images "
            f"of {name}"
        )
    # Copies: slices would keep all images in memory.
    seen, unseen = (both.subset(torch.arange(*ends)) for ends in ((train_images,), (begin, len(both))))
    return seen, unseen.in_memory()
