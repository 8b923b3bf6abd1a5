"""Fashion-MNIST in its official files, or as Debian packs them."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.image_files import data_root, unit_range

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` keeps the official files."""
# MD5 sums of the unpacked files: Debian packs the same content anew, so the sums of its archives are others.
_FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def fashion_mnist(*, train: bool, root: Path | str | None = None) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 training or 10,000 test images of clothes, gray, 28×28.

    Each image gets a black border of two pixels, to 32×32, and three equal channels: moving a gray level by d moves the
    image by √3 d in ℓ2. The official files are read from ``root/FashionMNIST/raw`` (default of ``root``:
    ``data_root()``), otherwise from Debian's package ``dataset-fashion-mnist``. Where neither has them torchvision
    downloads them into ``root``. The MD5 sum of their content is checked at every reading.

    Raises:
        FileNotFoundError: the data are neither there nor downloadable; the message names the ways to get them.
        ValueError: a file is damaged; the message names it.
        OSError: a file cannot be read.
    """
    inputs.flag("train", train)
    if root is not None:
        inputs.path("root", root)
    half = "train" if train else "t10k"
    levels = torch.from_numpy(_idx(root, f"{half}-images-idx3-ubyte"))
    labels = torch.from_numpy(_idx(root, f"{half}-labels-idx1-ubyte"))
    return Dataset(
        images=unit_range(torch.nn.functional.pad(levels, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1)),
        labels=labels.to(torch.int64),
        classes=FASHION_MNIST_CLASSES,
        name="Fashion-MNIST",
        info={"dataset": "fashion_mnist", "split": "train" if train else "test"},
    )


def _idx(root: Path | str | None, name: str) -> np.ndarray:
    """The numbers of one official file of Fashion-MNIST, packed: an array of bytes in the IDX format."""
    folder = Path(root).expanduser() if root is not None else data_root()
    own = folder / "FashionMNIST" / "raw"
    path = next(
        (place / f"{name}.gz" for place in (own, DEBIAN_FASHION_MNIST) if (place / f"{name}.gz").exists()), None
    )
    if path is None:
        from torchvision.datasets import FashionMNIST

        path = own / f"{name}.gz"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".fashion-mnist.lock"):
                FashionMNIST(str(folder), download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"Fashion-MNIST ({path.name}) is neither in {own} nor in {DEBIAN_FASHION_MNIST} and could not be "
                f"downloaded ({error}). Put the four official .gz files into the first folder, or install Debian's "
                "package dataset-fashion-mnist, or run once with a network. The profile 'planted' needs no data."
            ) from error
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"damaged: {path} ({error}); delete it, or put it there once more") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _FASHION_MNIST_MD5[name]:
        raise ValueError(
            f"damaged: {path} (the MD5 sum of its content is not the official one); delete it, or put it "
            "there once more"
        )
    # Two zero bytes, the type (8: unsigned bytes), the number of dimensions, and each dimension in four bytes.
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
