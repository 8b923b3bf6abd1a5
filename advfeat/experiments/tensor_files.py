"""Files of tensors with a checksum and the key that they were written under; both are checked when one is read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from advfeat.files import write_whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, of: str) -> None:
    """Write the tensors under the key ``of``; equal content gives equal bytes."""
    parts: dict[str, Tensor] = {}
    stored: set[int] = set()
    for key, value in tensors.items():
        part = value.detach().contiguous()
        address = part.untyped_storage().data_ptr()
        # The file format does not allow two names for one piece of memory.
        parts[key] = part.clone() if address in stored else part
        stored.add(address)
    # The metadata is one entry: the file format has no order for several, and equal content must be equal bytes.
    metadata = {"advfeat": f"{_checksum(parts, of)} {of}"}
    write_whole(path, lambda partial: save_file(parts, partial, metadata=metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file and the key that they were written under; None if an earlier version wrote the file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            parts = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if metadata is None:
        return parts, None
    checksum, _, of = metadata.get("advfeat", "").partition(" ")
    if checksum != _checksum(parts, of):
        raise ValueError("its checksum is wrong")
    return parts, of


def _checksum(tensors: Mapping[str, Tensor], of: str) -> str:
    """CRC-32 over names, types, shapes and bytes of tensors, and over the key that they are written under."""
    about = {key: [str(part.dtype), list(part.shape)] for key, part in tensors.items()}
    found = zlib.crc32(json.dumps([of, about], sort_keys=True).encode())
    for key in sorted(tensors):
        found = zlib.crc32(tensors[key].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
