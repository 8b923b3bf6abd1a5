"""The datasets that the paper's authors released for CIFAR-10: four folders of two files, lists of tensors in each."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.files import load_tensors
from advfeat.image_files import CIFAR10_CLASSES, unit_range

FOLDERS = {"D_R": "robust_CIFAR", "D_NR": "non_robust_CIFAR", "D_rand": "drand_CIFAR", "D_det": "ddet_CIFAR"}
"""Name of a set in this book → name of its folder in the release, which may also begin with ``d_``."""


def load_authors_set(kind: str, root: Path | str) -> Dataset:
    """One of the authors' own sets, from the files ``CIFAR_ims`` and ``CIFAR_lab`` in its folder.

    Each file is a pickled tensor or a pickled list of batches. Only tensors are read: a pickle can run any program, so
    a file that holds anything else is refused before it is executed. A truncated file is refused, too; a flipped bit is
    noticed only in PyTorch's newer file format. Images may be uint8 or floating point, channels first or last, in
    [0, 1] or [0, 255]. The release does not give the order of the images or the original of each, so ``truth`` is
    empty except for D_det, where the target determines the original label: ``truth["source_labels"]`` is
    (label − 1) mod 10.

    Args:
        kind: ``D_R``, ``D_NR``, ``D_rand`` or ``D_det``.
        root: the folder that the authors' archive was unpacked into, or ``release_datasets`` inside it.

    Raises:
        ValueError: another ``kind``, or a file that is damaged or has other contents than described.
        FileNotFoundError: the set does not exist; the message names the folders that were tried.

    Source: MadryLab/constructed-datasets, README and issues 4, 7 and 11.
    """
    inputs.text("kind", kind)
    inputs.path("root", root)
    if kind not in FOLDERS:
        raise ValueError(f"kind must be one of {', '.join(FOLDERS)}, got {kind!r}")
    candidates = _candidates(kind, root)
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"no released {kind}: none of the folders {', '.join(map(str, candidates))} exists")
    labels = _labels(folder / "CIFAR_lab")
    return Dataset(
        images=_images(folder / "CIFAR_ims"),
        labels=labels,
        classes=CIFAR10_CLASSES,
        name=kind,
        truth={"source_labels": (labels - 1) % len(CIFAR10_CLASSES)} if kind == "D_det" else {},
        info={"dataset": "released", "set": folder.name},
    )


class Release:
    """An unpacked release, seen to hold one of the sets at least. Each set is read once, when it is asked for.

    Args:
        root: as for ``load_authors_set``.
        images: how many images of a set are taken, from the first on.
        device: where they are kept.

    Raises:
        FileNotFoundError: none of the sets is there.
    """

    def __init__(self, root: Path | str, *, images: int, device: torch.device) -> None:
        inputs.path("root", root)
        if not any(path.is_dir() for kind in FOLDERS for path in _candidates(kind, root)):
            names = ", ".join(FOLDERS.values())
            raise FileNotFoundError(f"released must be a folder with one of {names} in it, got {str(root)!r}")
        self.root = Path(root).expanduser()
        self.images = images
        self.device = device
        self._read: dict[str, tuple[Dataset, str]] = {}

    def read(self, kind: str) -> tuple[Dataset, str]:
        """A set and its fingerprint; hashing 50,000 images takes a second. For errors see ``load_authors_set``."""
        if kind not in self._read:
            found = load_authors_set(kind, self.root).subset(slice(0, self.images)).to(self.device)
            self._read[kind] = found, found.fingerprint()
        return self._read[kind]


def _candidates(kind: str, root: Path | str) -> list[Path]:
    """The folders in which a set may lie."""
    names = (FOLDERS[kind], f"d_{FOLDERS[kind]}")
    return [Path(root).expanduser() / part / name for part in ("", "release_datasets") for name in names]


def _tensor(path: Path) -> Tensor:
    """The contents of a file, as one tensor on the CPU."""
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}")
    if not path.is_file():
        raise ValueError(f"{path} must be a file, but is not one")
    with path.open("rb") as stream:
        try:
            found = load_tensors(stream, path)
        except UnpicklingError as error:
            raise ValueError(str(error)) from error
    parts = [found] if isinstance(found, Tensor) else found
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, Tensor) for part in parts):
        raise ValueError(f"{path} must hold a tensor or a list of tensors, got {type(found).__name__}")
    if any(part.shape[1:] != parts[0].shape[1:] or not part.ndim for part in parts) or not any(map(len, parts)):
        shapes = ", ".join(sorted({str(tuple(part.shape)) for part in parts}))
        raise ValueError(f"{path} must hold one or more batches of rows of one shape, got {shapes}")
    return torch.cat(list(parts))


def _images(path: Path) -> Tensor:
    images = _tensor(path)
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
        raise ValueError(f"{path} must hold images (n, 3, h, w) or (n, h, w, 3), got {tuple(images.shape)}")
    if images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    # Floats far above 1 are on the scale of bytes. Floats a little above 1 are rounded, and the clamp below mends that.
    # Floats in between fit neither scale and are refused.
    bytes_ = images.dtype == torch.uint8 or bool(images.max() > 16)
    images = unit_range(images, white=255 if bytes_ else 1)
    low, high = (float(value) for value in torch.aminmax(images))
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"{path} must hold values in [0, 1] or [0, 255], got {low:.4g} to {high:.4g}")
    return images.clamp_(0, 1)


def _labels(path: Path) -> Tensor:
    labels = _tensor(path)
    whole = labels.to(torch.int64)
    if labels.ndim != 1 or not torch.equal(whole.to(labels.dtype), labels):
        raise ValueError(f"{path} must hold one whole number per image, got {labels.dtype} {tuple(labels.shape)}")
    return whole
