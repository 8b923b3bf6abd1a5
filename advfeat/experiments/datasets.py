"""The data sets that a profile can name, one entry each: the first training and test images of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from advfeat.data import Dataset
from advfeat.image_files import cifar10, data_root, image_folder
from advfeat.planted import PlantedWorld, planted

SIDE = 32
"""Height and width of all images, in pixels. Step sizes and networks of the profiles are chosen for it."""


@dataclass(frozen=True)
class ImageSource:
    """Where the images of a data set come from.

    Attributes:
        load: ``load(train, count)`` gives the first ``count`` training or test images, or as many as there are.
        from_files: whether they are read from files, which may be missing or damaged.
        varies: whether other images may lie under the same name elsewhere; records then hold their fingerprint.
    """

    load: Callable[[bool, int], Dataset]
    from_files: bool = True
    varies: bool = False


def _planted(train: bool, count: int) -> Dataset:
    # Two streams of one world: the features are the same, the images are not.
    return planted(PlantedWorld(), count, seed=1 if train else 2)


def _cifar10(train: bool, count: int) -> Dataset:
    return cifar10(train=train).subset(slice(0, count))


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


DATASETS: dict[str, ImageSource] = {
    "planted": ImageSource(_planted, from_files=False),
    "cifar10": ImageSource(_cifar10),
    "folder": ImageSource(_folder, varies=True),
}
"""Name, as a profile's ``data`` has it → where its images come from."""
