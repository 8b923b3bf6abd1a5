"""Pixels and labels as two tensors: datasets, batches and augmentation."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from advfeat import inputs
from advfeat.engine.fused_steps import augment_step


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images held in memory.

    Attributes:
        images: float32 (n, 3, height, width), values in [0, 1].
        labels: int64 (n,), values in [0, number of classes).
        classes: class names, in label order.
        name: short name for figures and records.
        truth: per-image facts that no model sees, each with first dimension n; the planted world keeps which shape
            and which texture it drew, a constructed dataset keeps the labels of the images it started from.
        info: how the dataset was made, in JSON types.

    Raises:
        TypeError: images are not float32, labels not int64, or something else is not of its type.
        ValueError: shapes disagree, a value is not a number in [0, 1], or a label has no class.
    """

    images: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    name: str
    truth: Mapping[str, Tensor] = field(default_factory=dict)
    info: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_images()
        inputs.labels(self.labels)
        inputs.instance("classes", self.classes, (tuple, list), "the names of the classes, in label order")
        for name in self.classes:
            inputs.text("classes", name)
        inputs.text("name", self.name)
        for key, mapping in (("truth", self.truth), ("info", self.info)):
            inputs.instance(key, mapping, Mapping, "a mapping")
        count = len(self.images)
        for key, values in {"labels": self.labels, **self.truth}.items():
            inputs.instance(f"truth[{key!r}]", values, Tensor, "a tensor")
            if values.ndim == 0 or len(values) != count:
                rows = len(values) if values.ndim else "no"
                raise ValueError(f"{key} has {rows} rows for {count} images")
        pixels = [("images", self.images, inputs.BOX)] if isinstance(self.images, Tensor) else []
        inputs.look(*pixels, ("labels", self.labels, (0, len(self.classes) - 1)))

    def check_images(self) -> None:
        """Refuse images of another type or shape; their values are looked at together with the labels."""
        inputs.tensor("images", self.images, "n 3 h w")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def replace(self, **changes: Any) -> Dataset:
        """The same dataset with some fields changed."""
        return dataclasses.replace(self, **changes)

    def subset(self, index: slice | Tensor) -> Dataset:
        """The images that ``index`` (a slice, an integer tensor or a boolean tensor) selects, with their truth.

        Raises:
            TypeError: another kind of index.
            ValueError: a row that is not there, or a boolean tensor of another length.
        """
        if not isinstance(index, slice):
            inputs.tensor("index", index, "rows", (torch.int64, torch.int32, torch.bool))
            if index.dtype == torch.bool:
                inputs.tensor("index", index, "n", inputs.BOOL, n=len(self))
            else:
                inputs.look(("index", index, (-len(self), len(self) - 1)))
        return self.replace(
            images=self.rows_of_images(index),
            labels=self.labels[index],
            truth={key: values[index] for key, values in self.truth.items()},
        )

    def rows_of_images(self, index: slice | Tensor) -> Any:
        """The images of some rows, as ``subset`` has checked them."""
        return self.images[index]

    def in_memory(self) -> Dataset:
        """The dataset with its images in memory: itself, unless it is a ``streamed.StreamedDataset``."""
        return self

    def of_each_class(self, count: int) -> Int[Tensor, "count classes"]:
        """Rows of the first ``count`` images of every class, one column per class.

        Raises:
            ValueError: a class has fewer images.
        """
        inputs.whole("count", count, least=0)
        columns = [(self.labels == label).nonzero(as_tuple=True)[0][:count] for label in range(self.num_classes)]
        scarce = [self.classes[label] for label, column in enumerate(columns) if len(column) < count]
        if scarce:
            raise ValueError(f"count: fewer than {count} images of {', '.join(scarce)}")
        return torch.stack(columns, dim=1)

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset on another device."""
        inputs.instance("device", device, (str, torch.device), "a device such as 'cpu' or 'cuda'")
        return self.replace(
            images=self.images.to(device),
            labels=self.labels.to(device),
            truth={key: values.to(device) for key, values in self.truth.items()},
        )

    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels (float32) and labels (int64): equal data, equal fingerprint."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for part in self.images.split(5000):
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        digest.update(self.labels.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def check_dataset(dataset: object, *, least: int = 0, name: str = "dataset") -> None:
    """Refuse anything but a ``Dataset``, and one of fewer than ``least`` images.

    Raises:
        TypeError: another object.
        ValueError: too few images.
    """
    inputs.instance(name, dataset, Dataset, "a data.Dataset")
    if isinstance(dataset, Dataset) and len(dataset) < least:
        raise ValueError(f"{name} must have {least} images or more, got {len(dataset)}")


def batches(
    dataset: Dataset, *, batch_size: int, generator: torch.Generator | None = None, drop_last: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images, labels) in order, or in a fresh random order drawn from ``generator``.

    Raises:
        ValueError: ``batch_size`` is not positive.
    """
    check_dataset(dataset)
    inputs.whole("batch_size", batch_size, least=1)
    inputs.flag("drop_last", drop_last)
    if generator is not None:
        inputs.generator(generator)
    count = len(dataset)
    order = None if generator is None else torch.randperm(count, generator=generator)
    end = count - count % batch_size if drop_last else count
    for start in range(0, end, batch_size):
        rows = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
        yield dataset.images[rows], dataset.labels[rows]


def augment(
    images: Float[Tensor, "n c h w"], *, generator: torch.Generator, shift: int = 0, flip: bool = False
) -> Float[Tensor, "n c h w"]:
    """Move each image by up to ``shift`` pixels (borders reflected) and mirror half of them, if ``flip``.

    Raises:
        ValueError: ``shift`` is negative or not smaller than the image.
    """
    inputs.images(images)
    inputs.generator(generator)
    inputs.flag("flip", flip)
    inputs.whole("shift", shift)
    count, _, height, width = images.shape
    if not 0 <= shift < min(height, width):
        raise ValueError(f"shift must be in [0, {min(height, width)}), got {shift}")
    if not shift and not flip:
        return images
    offsets = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)[..., 0].to(images.device)
    mirrored = torch.zeros(count, dtype=torch.bool)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator)[:, 0] < 0.5
    return augment_step(images, offsets, mirrored.to(images.device), shift=shift)
