"""The steps of a chain as the C code reads them: which layer, where its numbers lie, and whose weights it reads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advfeat.engine.convolution_code import compiled_code, scratch, team
from advfeat.engine.winograd import Kernel, tiles

INPUT, OUTPUT, SAVED, EVEN, ODD, ADDED, GATE = range(7)  # areas of memory in which places lie


class Place(ctypes.Structure):
    """An area of memory (-1: none), and the floats for each image that lie before the place in it."""

    _fields_ = (("area", ctypes.c_long), ("offset", ctypes.c_long))


class ChainStep(ctypes.Structure):
    """The struct step of winograd.c."""

    _fields_ = (
        *((name, Place) for name in ("x", "y", "gate", "added", "open")),
        *((name, ctypes.c_void_p) for name in ("u", "bias", "zeros", "row", "column")),
        *((name, ctypes.c_int) for name in (
            "filtered", "relu", "height", "width", "inputs", "outputs", "padding", "full_height", "full_width",
            "from_row", "from_column", "down", "across", "apart", "stride", "taps",
        )),
    )  # fmt: skip


NOWHERE = Place(-1, 0)


class ChainSteps:
    """What the C code is to do, and whose weights it reads."""

    def __init__(self, made: list[tuple[ChainStep, Any]], back: bool) -> None:
        self._array = (ChainStep * len(made))(*(step for step, _ in made))
        self._of = [of for _, of in made]  # a Kernel, or a Part, which must stay in memory
        self._turned = back
        self._ready = False
        self._space: dict[tuple[int, ...], int] = {}  # floats that calls need

    def run(self, areas: Sequence[Tensor | None], count: int) -> None:
        """Fill the areas that the steps write to, for ``count`` images."""
        at = (ctypes.c_void_p * len(areas))(*(None if area is None else area.data_ptr() for area in areas))
        if not self._ready and all(self._keeps(i, count) for i in range(len(self._of))):
            for i in range(len(self._of)):
                self._set(i, count)
            self._ready = True
        if self._ready:
            self._call(0, len(self._of), at, count)
            return
        for i in range(len(self._of)):  # large transforms are made for one step, and the next writes over them
            self._set(i, count)
            self._call(i, 1, at, count)

    def _call(self, first: int, many: int, at: Any, count: int) -> None:
        library, threads = compiled_code(), torch.get_num_threads()
        steps = ctypes.addressof(self._array) + first * ctypes.sizeof(ChainStep)
        call = first, many, count, threads
        if call not in self._space:
            self._space[call] = library.winograd_chain_space(steps, many, count, threads)
        space = scratch(self._space[call])
        library.winograd_chain(steps, many, at, space.data_ptr(), count, threads, team())

    def _keeps(self, i: int, count: int) -> bool:
        of = self._of[i]
        return not isinstance(of, Kernel) or of.keeps(turned=self._turned, count=self._tiles(i, count))

    def _set(self, i: int, count: int) -> None:
        of = self._of[i]
        if isinstance(of, Kernel):
            self._array[i].u = of.transformed(turned=self._turned, count=self._tiles(i, count)).data_ptr()

    def _tiles(self, i: int, count: int) -> int:
        step = self._array[i]
        return count * tiles(step.height + 2 * step.padding - 2, step.width + 2 * step.padding - 2)
