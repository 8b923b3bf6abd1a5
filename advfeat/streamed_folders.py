"""A folder of pictures, packed once into a file of 8-bit levels and read from there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from advfeat import inputs
from advfeat.image_files import cropped, is_hidden, pictures_in
from advfeat.streamed import StreamedDataset, StreamedImages, write_in_pieces


def streamed_folder(
    path: Path | str,
    *,
    size: int,
    into: Path | str,
    resized: int | None = None,
    classes: Mapping[str, int] | None = None,
    names: Sequence[str] | None = None,
    name: str | None = None,
) -> StreamedDataset:
    """A folder of pictures, one sub-folder per class, packed as 8-bit levels into one file and read from there.

    Every picture is read once, as ``image_files.image_folder`` reads it; its shorter side is resized to ``resized`` and
    the centre of ``size``×``size`` is kept. They lie in the file in an order drawn with the seed 0, so that the first
    ones of a subset are of all classes. What is packed from the same files in the same way is taken as it is: names,
    sizes and times of change are compared. A run that was stopped while packing goes on.

    Args:
        path: the folder.
        size: side of the images, in pixels.
        into: the folder for the file, which takes 3 · size² bytes a picture: 150,528 at 224. An earlier file of that
            folder with other pictures is deleted.
        resized: shorter side of a picture before its centre is cut out; default: size · 256 / 224, as is usual for
            ImageNet.
        classes: name of a sub-folder → label. Without it every sub-folder with pictures is a class, in alphabetical
            order; others are passed over.
        names: names of the classes in label order; default: those of the sub-folders.
        name: of the dataset; default: that of the folder.

    Raises:
        FileNotFoundError: ``path`` is no folder, or there is no picture in the sub-folders.
        ValueError: ``size`` is not positive, ``resized`` is smaller, or a picture is damaged; the message names it.
        OSError: the file cannot be written.
    """
    for key, value in (("path", path), ("into", into)):
        inputs.path(key, value)
    inputs.whole("size", size, least=1)
    shorter = round(size * 256 / 224) if resized is None else resized
    inputs.whole("resized", shorter, least=size)
    root, kept = Path(path).expanduser(), Path(into).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"path must be a folder with one sub-folder per class, got {path}")
    numbers = dict(classes) if classes is not None else {folder: at for at, folder in enumerate(streamed_classes(root))}
    files, labels = _named(root, numbers)
    if not len(files):
        raise FileNotFoundError(f"no picture in {root}, in sub-folders {_some(numbers)}")
    if names is None:
        names = [folder for _, folder in sorted((label, folder) for folder, label in numbers.items())]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    files, labels = files[order.numpy()], labels[order]
    digest = hashlib.sha256(f"{size} {shorter}".encode())
    for file, label in zip(files, labels.tolist(), strict=True):
        at = _place(root, file).stat()
        digest.update(b"%s\0%d\0%d\0%d\n" % (file, label, at.st_size, at.st_mtime_ns))
    # What was read has part in the name, so a dataset that is open never sees other pictures.
    stem = re.sub(r"\W+", "-", f"{name or root.parent.name} {root.name} {size}".lower())
    kept.mkdir(parents=True, exist_ok=True)
    packed = kept / f"{stem}-{digest.hexdigest()[:16]}.u8"
    with FileLock(kept / f".{stem}.lock"), ThreadPoolExecutor(os.cpu_count()) as pool:

        def pixels(rows: slice) -> Tensor:
            chosen = [_place(root, file) for file in files[rows]]
            return torch.stack(list(pool.map(partial(cropped, size=size, resized=shorter), chosen)))

        if not packed.exists():
            shape, step = (len(files), 3, size, size), max(1, 10_000_000 // (3 * size * size * 4))
            write_in_pieces(packed, shape, pixels, white=255, batch_size=step, name=f"packing {root.name}")
            for stale in kept.glob(f"{stem}-*.u8*"):
                if stale != packed:
                    stale.unlink()
    return StreamedDataset(
        images=StreamedImages(packed, (3, size, size), torch.arange(len(files))),
        labels=labels,
        classes=tuple(names),
        name=name or root.name,
        info={"dataset": "streamed_folder", "size": size, "resized": shorter},
    )


def streamed_classes(path: Path | str) -> list[str]:
    """The sub-folders of ``path`` with pictures, in alphabetical order: the classes of ``streamed_folder``.

    Raises:
        FileNotFoundError: ``path`` is no folder, or has none.
    """
    inputs.path("path", path)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"path must be a folder with one sub-folder per class, got {path}")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    filled = [folder for folder in folders if pictures_in(root, {folder: 0})]
    if not filled:
        raise FileNotFoundError(f"path must have one sub-folder with pictures per class, and {path} has none")
    return filled


def _named(root: Path, numbers: Mapping[str, int]) -> tuple[np.ndarray, Tensor]:
    """The names of the pictures below ``root``, as bytes, and their labels: no object for each of a million names."""
    names, labels = [np.empty(0, "S1")], [torch.empty(0, dtype=torch.int64)]
    for folder, label in sorted(numbers.items()):
        found = [os.fsencode(os.path.relpath(file, root)) for file, _ in pictures_in(root, {folder: label})]
        names.append(np.array(found, "S" if found else "S1"))
        labels.append(torch.full((len(found),), label, dtype=torch.int64))
    return np.concatenate(names), torch.cat(labels)


def _place(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(bytes(name))


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} others" if len(shown) > 3 else "")
