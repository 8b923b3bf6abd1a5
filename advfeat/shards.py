"""Images that are made in pieces, where a finished piece is kept: a run that was stopped goes on with the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from advfeat import inputs
from advfeat.progress import progress


@runtime_checkable
class Shards(Protocol):
    """Where finished pieces of a dataset wait for the rest, such as ``checkpoints.DatasetShards``."""

    def load(self, start: int) -> Tensor | None:
        """The images from row ``start`` on, or None if that piece is not finished."""

    def save(self, start: int, images: Tensor) -> None:
        """Keep a finished piece; either wholly written or not at all."""


def check_pieces(batch_size: int, shards: Shards | None) -> None:
    """Refuse a size of pieces that is not positive, and anything but a place for them."""
    inputs.whole("batch_size", batch_size, least=1)
    inputs.instance("shards", shards, (Shards, type(None)), "a place for pieces with load and save")


def fill_in_pieces(
    images: Float[Tensor, "n 3 h w"],
    make: Callable[[slice], Tensor],
    name: str,
    batch_size: int,
    shards: Shards | None,
) -> None:
    """Overwrite ``images`` piece by piece with the images that ``make(rows)`` returns or ``shards`` has kept."""
    with progress(total=len(images), unit="img", description=name) as bar, inputs.trusted():
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            piece = shards.load(start) if shards is not None else None
            # A piece of another batch size is no use, and one row would fill a whole batch without a word.
            if piece is None or piece.shape != images[rows].shape:
                piece = make(rows)
                if shards is not None:
                    shards.save(start, piece)
            images[rows] = piece
            bar.update(len(piece))
