"""Datasets whose images stay in a file: as many as the disk holds, in the memory of one batch.

``streamed_folder`` reads a folder of pictures once and packs them, cropped, into a file of 8-bit levels. ``construct``
writes what it makes of them into a file of 16-bit levels. Training, accuracies and constructions read their batches
from such a file; whatever needs all images at once refuses, and ``in_memory`` loads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int
from torch import Tensor

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.image_files import cropped, is_hidden, pictures_in, unit_range
from advfeat.progress import progress

LEVELS: dict[int, type[np.unsignedinteger[Any]]] = {255: np.uint8, 65535: np.uint16}
"""Highest level → type of the levels in a file."""


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images in a file, of which those are read that an index asks for.

    Attributes:
        path: the file: the levels of one image after the other, channel by channel, in the order of bytes of a PC.
        sides: channels, height and width of an image.
        rows: which images of the file these are, int64.
        white: the highest level, 255 or 65,535.
        device: where images are put that are read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is too short for these rows, or ``white`` is another number.
    """

    path: Path
    sides: tuple[int, int, int]
    rows: Int[Tensor, " n"]
    white: int = 255
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        inputs.path("path", self.path)
        if self.white not in LEVELS:
            raise ValueError(f"white must be one of {', '.join(map(str, LEVELS))}, got {self.white}")
        inputs.tensor("rows", self.rows, "n", inputs.INT64)
        if not self.path.is_file():
            raise FileNotFoundError(f"path must be a file of images, got {self.path}")
        inputs.look(("rows", self.rows, (0, self.path.stat().st_size // self._bytes - 1)))

    @property
    def shape(self) -> torch.Size:
        """Images, channels, height and width."""
        return torch.Size((len(self.rows), *self.sides))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Float[Tensor, "n 3 h w"]:
        """The images of a slice, an integer tensor or a boolean tensor: float32 in [0, 1], in memory.

        Raises:
            TypeError: another kind of index.
            OSError: the file cannot be read.
        """
        rows = self.rows[_checked(index)]
        levels = np.empty((len(rows), *self.sides), LEVELS[self.white])
        # Images that follow one another in the file are read at once.
        ends = [0, *((rows.diff() != 1).nonzero().flatten() + 1).tolist(), len(rows)]
        with self.path.open("rb") as stream:
            for start, end in pairwise(ends):
                if end > start:
                    stream.seek(int(rows[start]) * self._bytes)
                    if stream.readinto(levels[start:end].view(np.uint8).data) != (end - start) * self._bytes:
                        raise OSError(f"{self.path} has been shortened while it was read")
        wide = torch.from_numpy(levels if self.white == 255 else levels.astype(np.int32))
        return unit_range(wide, white=self.white).to(self.device)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"images of a streamed dataset have no {name!r}: they are in a file; "
            "dataset.subset(...).in_memory() loads as many as are needed"
        )

    def to(self, device: torch.device | str) -> StreamedImages:
        """The same images, put on another device as they are read."""
        return dataclasses.replace(self, device=torch.device(device))

    def split(self, count: int) -> Iterator[Float[Tensor, "n 3 h w"]]:
        """The images in pieces of ``count``, one after the other."""
        for start in range(0, len(self), count):
            yield self[slice(start, start + count)]

    def checksum(self) -> str:
        """CRC-32 of the file: eight hexadecimal digits."""
        found = 0
        with self.path.open("rb") as stream:
            while block := stream.read(1 << 24):
                found = zlib.crc32(block, found)
        return f"{found:08x}"

    @property
    def _bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.sides)) * np.dtype(LEVELS[self.white]).itemsize


@dataclass(frozen=True, eq=False)
class StreamedDataset(Dataset):
    """Labelled images in a file, see ``StreamedImages``; labels and truth are in memory.

    An index of its ``images`` gives float32 images as those of a ``Dataset``, and so ``batches``, ``train.train``,
    ``measures.accuracy`` and ``construct`` take it as it is.

    Raises:
        TypeError, ValueError: as ``Dataset``.
    """

    images: StreamedImages  # type: ignore[assignment]

    def check_images(self) -> None:
        """The file holds levels, which are in [0, 1] when they are read; here the shape is looked at."""
        inputs.instance("images", self.images, StreamedImages, "streamed images")
        if self.images.sides[0] != 3:
            raise ValueError(f"images must have shape (n, 3, height, width), got {tuple(self.images.shape)}")

    def rows_of_images(self, index: slice | Tensor) -> Any:
        """The images of some rows, still in their file."""
        return dataclasses.replace(self.images, rows=self.images.rows[index])

    def in_memory(self) -> Dataset:
        """The same dataset with all its images in memory, 12 bytes for each pixel."""
        return Dataset(self.images[slice(None)], self.labels, self.classes, self.name, self.truth, self.info)


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
    found = pictures_in(root, numbers)
    if not found:
        raise FileNotFoundError(f"no picture in {root}, in sub-folders {_some(numbers)}")
    if names is None:
        names = [folder for _, folder in sorted((label, folder) for folder, label in numbers.items())]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    files = [found[place] for place in order]
    digest = hashlib.sha256(f"{size} {shorter}".encode())
    for file, label in files:
        at = Path(file).stat()
        digest.update(f"{os.path.relpath(file, root)}\0{label}\0{at.st_size}\0{at.st_mtime_ns}\n".encode())
    # What was read has part in the name, so a dataset that is open never sees other pictures.
    stem = re.sub(r"\W+", "-", f"{name or root.parent.name} {root.name} {size}".lower())
    kept.mkdir(parents=True, exist_ok=True)
    packed = kept / f"{stem}-{digest.hexdigest()[:16]}.u8"
    with FileLock(kept / f".{stem}.lock"), ThreadPoolExecutor(os.cpu_count()) as pool:

        def pixels(rows: slice) -> Tensor:
            chosen = [Path(file) for file, _ in files[rows]]
            return torch.stack(list(pool.map(partial(cropped, size=size, resized=shorter), chosen)))

        if not packed.exists():
            shape, step = (len(files), 3, size, size), max(1, 10_000_000 // (3 * size * size * 4))
            write_in_pieces(packed, shape, pixels, white=255, batch_size=step, name=f"packing {root.name}")
            for stale in kept.glob(f"{stem}-*.u8*"):
                if stale != packed:
                    stale.unlink()
    return StreamedDataset(
        images=StreamedImages(packed, (3, size, size), torch.arange(len(files))),
        labels=torch.tensor([label for _, label in files], dtype=torch.int64),
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


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} others" if len(shown) > 3 else "")


def write_in_pieces(
    path: Path,
    shape: Sequence[int],
    make: Callable[[slice], Tensor],
    *,
    white: int,
    batch_size: int,
    name: str,
) -> StreamedImages:
    """Write what ``make(rows)`` gives for one piece after the other into a file, which is whole or absent.

    Finished images of a run that was stopped are in the file beside it that ends in ``.unfinished``; the next run goes
    on behind them. So an image must depend on nothing but its row. Levels are rounded to the nearest of ``white`` + 1.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    count, sides = shape[0], (int(shape[1]), int(shape[2]), int(shape[3]))
    size = int(np.prod(sides)) * np.dtype(LEVELS[white]).itemsize
    with unfinished.open("ab") as stream:
        done = min(stream.tell() // size, count)
        stream.truncate(done * size)
        stream.seek(0, os.SEEK_END)
        with progress(total=count, initial=done, unit="img", description=name) as bar, inputs.trusted():
            for start in range(done, count, batch_size):
                piece = make(slice(start, min(start + batch_size, count)))
                levels = piece.detach().cpu().mul(white).round_().numpy().astype(LEVELS[white])
                stream.write(np.ascontiguousarray(levels).data)
                stream.flush()
                os.fsync(stream.fileno())  # so that the length of the file never counts an image that is not there
                bar.update(len(piece))
    unfinished.replace(path)
    return StreamedImages(path, sides, torch.arange(count), white)


def _checked(index: slice | Tensor) -> slice | Tensor:
    if not isinstance(index, slice):
        inputs.tensor("index", index, "rows", (torch.int64, torch.int32, torch.bool))
        return index.cpu()
    return index
