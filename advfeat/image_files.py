"""Readers of image files: CIFAR-10 in its official batches, and any folder of labelled images."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor

from advfeat import inputs
from advfeat.checkout import CHECKOUT
from advfeat.data import Dataset

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def data_root() -> Path:
    """Folder of raw data: ``ADVFEAT_DATA``, or ``data/`` in the checkout, without one in the working folder."""
    given = os.environ.get("ADVFEAT_DATA")
    return Path(given).expanduser() if given else (CHECKOUT if (CHECKOUT / "book").is_dir() else Path.cwd()) / "data"


def unit_range(levels: Tensor, *, white: int = 255) -> Tensor:
    """Whole levels from 0 to ``white`` as float32 in [0, 1].

    A division, as in the paper's code and by every reader here: a product with 1/255 differs from it in the last bit of
    126 of the 256 levels, and the same picture would have two fingerprints.
    """
    copy = levels.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return copy.div_(white)


def cifar10(*, train: bool, root: Path | str | None = None) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training or 10,000 test images of 32×32.

    Reads the official batches from ``root`` (default: ``data_root()``) through torchvision, which verifies their MD5
    sums, and downloads them where they are missing and the network allows it. A damaged file is not downloaded over.

    Raises:
        FileNotFoundError: the data are neither there nor downloadable; the message names both ways to get them.
        ValueError: files are there, but damaged; the message names them.
        OSError: a file cannot be read.
    """
    from torchvision.datasets import CIFAR10  # imported late: torchvision takes a second, planted runs do not need it

    inputs.flag("train", train)
    if root is not None:
        inputs.path("root", root)
    folder = Path(root) if root is not None else data_root()
    try:
        source = CIFAR10(str(folder), train=train, download=False)
    except RuntimeError:
        missing = _missing_from_cifar10(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Two downloads at once would cut off each other's archive. Whoever waited looks again, inside torchvision,
            # and downloads nothing.
            with FileLock(folder / ".cifar10.lock"):
                source = CIFAR10(str(folder), train=train, download=True)
        except (OSError, RuntimeError) as error:
            lacking = f" (of the files in cifar-10-batches-py/ {', '.join(missing)} are missing)" if missing else ""
            raise FileNotFoundError(
                f"CIFAR-10 is not in {folder}{lacking} and could not be downloaded ({error}). Either set ADVFEAT_DATA "
                "to the folder that holds cifar-10-batches-py/, or run once with a network so that torchvision fetches "
                "it. The profile 'planted' needs no data."
            ) from error
    return Dataset(
        images=unit_range(torch.from_numpy(source.data).permute(0, 3, 1, 2)),
        labels=torch.tensor(source.targets, dtype=torch.int64),
        classes=CIFAR10_CLASSES,
        name="CIFAR-10",
        info={"dataset": "cifar10", "split": "train" if train else "test"},
    )


def _missing_from_cifar10(folder: Path) -> list[str]:
    """The official files that ``folder`` lacks, where it has some.

    Raises:
        ValueError: some are damaged, with their names.
    """
    from torchvision.datasets.cifar import CIFAR10 as OFFICIAL

    place = folder / OFFICIAL.base_folder
    sums = {**dict(OFFICIAL.train_list), **dict(OFFICIAL.test_list), OFFICIAL.meta["filename"]: OFFICIAL.meta["md5"]}
    there = {name for name in sums if (place / name).exists()}
    damaged = [name for name in sums if name in there and _md5(place / name) != sums[name]]
    # A download that was killed while unpacking leaves a whole archive; torchvision unpacks it again.
    if damaged and (_md5(folder / OFFICIAL.filename) != OFFICIAL.tgz_md5 or damaged == [OFFICIAL.meta["filename"]]):
        raise ValueError(
            f"damaged in {place}: {', '.join(damaged)} (the MD5 sum is not the official one); unpack "
            f"{OFFICIAL.filename} there once more, or delete that folder to have it downloaded again"
        )
    return [name for name in sums if name not in there] if there else []


def _md5(path: Path) -> str:
    if not path.is_file():
        return "no file"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def image_folder(
    path: Path | str, *, size: int, name: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """A folder of images, one sub-folder per class, each image resized and centre-cropped to ``size``×``size``.

    Names that begin with a dot, at any depth, and ``__MACOSX`` are no part of it: programs put them there. Files that
    do not end as images do are passed over. An image is read as a viewer shows it: turned as its EXIF data say, a gray
    one on all three channels, transparent parts on white, of several frames the first; a colour profile is not applied.
    Levels of 8 and of 16 bits are divided by the highest one, 255 or 65,535.

    Args:
        classes: names of the classes in label order. Without them the sub-folders are the classes, in alphabetical
            order, and each must hold an image. Give those of the training set for a test set, ``train.classes``: a
            class may then be without an image, and no label moves.

    Raises:
        FileNotFoundError: ``path`` is not a folder, holds no sub-folder with images, or a class has no image.
        ValueError: ``size`` is not positive, a sub-folder with images is none of ``classes``, ``classes`` names one
            twice, or a file is damaged or has no scale, as floating point and 32 bits; the message names it.
        TypeError: ``classes`` is one text.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
    from torchvision.transforms.v2 import functional

    inputs.path("path", path)
    inputs.whole("size", size)
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    if isinstance(classes, str):
        raise TypeError(f"classes must be a sequence of names, got the text {classes!r}")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"path must be a folder with one sub-folder per class, got {path}")

    def counts(file: str) -> bool:
        parts = Path(file).relative_to(root).parts
        return file.lower().endswith(IMG_EXTENSIONS) and not any(_is_hidden(part) for part in parts)

    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    numbers = {folder: number for number, folder in enumerate(folders)}
    found = make_dataset(str(root), numbers, is_valid_file=counts, allow_empty=True) if folders else []
    filled = {folders[number] for _, number in found}
    if not filled:
        raise FileNotFoundError(f"{root} must have one sub-folder with images per class, and has none")
    names = tuple(folders if classes is None else classes)
    if len(set(names)) < len(names):
        raise ValueError(f"classes must name each class once, got {', '.join(map(repr, names))}")
    if strange := sorted(filled - set(names)):
        raise ValueError(f"{root} has images of {', '.join(strange)}, but classes are {', '.join(map(str, names))}")
    if classes is None and (empty := [folder for folder in folders if folder not in filled]):
        raise FileNotFoundError(
            f"no image in {', '.join(str(root / folder) for folder in empty)}; remove folders "
            "that are no classes, or name the classes by classes="
        )
    # Resized in floating point: in whole levels torchvision rounds twice on some processors and once on others.
    images = [
        functional.center_crop(functional.resize(_read_image(Path(file)), [size], antialias=True), [size])
        for file, _ in found
    ]
    return Dataset(
        images=torch.stack(images).clamp_(0, 1),
        labels=torch.tensor([names.index(folders[number]) for _, number in found], dtype=torch.int64),
        classes=names,
        name=name or root.name,
        info={"dataset": "image_folder", "size": size},
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _read_image(path: Path) -> Tensor:
    """The pixels of a file (3, height, width), float32 in [0, 1].

    Raises:
        ValueError: it is damaged, or its values cannot be brought to [0, 1] without a guess.
    """
    try:
        with path.open("rb") as stream, Image.open(stream) as picture:
            depth = " ".join(str(tile[3]) for tile in picture.tile)  # as stored; gone once the pixels are loaded
            upright = ImageOps.exif_transpose(picture)
            # A gray PGM of more than 8 bits comes as 32-bit numbers, scaled to 16 bits.
            if upright.mode.startswith("I;16") or (upright.mode == "I" and picture.format == "PPM"):
                levels = np.asarray(upright).astype(np.int32)
                white = 4095 if "I;12" in depth else 65535
                # TIFF knows gray images in which 0 is white; of 16 bits they come as they are stored.
                if getattr(picture, "tag_v2", {}).get(262) == 0:
                    levels = white - levels
                if upright.has_transparency_data:
                    raise ValueError("transparent parts in 16 bits are not supported, save it with 8 bits")
                return unit_range(torch.from_numpy(levels), white=white).expand(3, -1, -1)
            if upright.mode in ("I", "F"):
                raise ValueError(f"its values, of Pillow's mode {upright.mode}, have no highest, save it with 8 bits")
            if ";16" in depth:
                raise ValueError(f"colour of 16 bits ({depth}) is not supported, save it with 8 bits")
            if upright.has_transparency_data:
                page = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(page, upright.convert("RGBA"))
            return unit_range(torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1))
    except (*_NO_IMAGE, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no whole image that can be read ({error}); mend it or take it away") from error


# The errors that Pillow has been seen to raise for damaged files, and related ones.
_NO_IMAGE = (
    EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error, zlib.error,
)  # fmt: skip
