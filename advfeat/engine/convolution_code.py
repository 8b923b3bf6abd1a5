"""The compiled C file of the convolutions: which code computes here, for which tensors, in which memory."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advfeat.engine.compiled import UnavailableError, instructions, load

SOURCE = Path(__file__).with_name("winograd.c")
_MAX_SCRATCH = 16 * 2**20  # floats that a thread keeps between calls; larger pieces are given back
_scratch = threading.local()


class Engine(NamedTuple):
    """Which code computes convolutions here, and why."""

    name: str
    """``"winograd"`` or ``"torch"``."""
    why: str
    """The instructions that it was compiled for, or the reason why it was not."""


def engine() -> Engine:
    """Which code computes float32 convolutions on the CPU; the first call compiles it unless that was done."""
    return _library()[1]


def engine_name() -> str:
    """``engine`` as records name it: ``torch``, or ``winograd`` with the instructions that it was compiled for."""
    return f"winograd, {engine().why}" if engine().name == "winograd" else "torch"


def applies(*tensors: Tensor | None) -> bool:
    """Whether compiled code may compute with these tensors: it sees memory only, and knows nothing of PyTorch's modes.

    So they must be ordinary float32 tensors on the CPU with something in them, no stand-ins
    such as those of torch.fx. And nobody may be watching: no ``torch.compile``, no autocast, no ``torch.func``
    (``vmap``, ``jvp``, ...), no forward-mode gradients, and no dispatch mode, which counts or records operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0:
        return False
    if torch._C._len_torch_dispatch_stack():
        return False
    for tensor in tensors:
        if tensor is not None and not (
            type(tensor) in (Tensor, torch.nn.Parameter) and tensor.dtype == torch.float32 and tensor.is_cpu
            and tensor.layout == torch.strided and tensor.numel() > 0 and not tensor.is_neg()
            and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
            and not torch._C._functorch.is_legacy_batchedtensor(tensor)
        ):  # fmt: skip
            return False
    return engine().name == "winograd"


class Kept:
    """Things made of a tensor, kept for as long as it is unchanged.

    PyTorch's own changes in place are noticed, and so is an assignment of other memory to ``.data``. A change that
    nobody counts is not: writing through ``.data``, NumPy or another process. Fused optimisers do not count theirs
    either, and a tensor that was made in inference mode counts none, so of these and of all that is being trained
    nothing is kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._made: dict[Hashable, tuple[Any, Any]] = {}

    def holds(self, name: Hashable) -> bool:
        """Whether ``get`` has something under this name that is not out of date."""
        return not self._tensor.requires_grad and name in self._made and self._made[name][0] == self._state()

    def get(self, name: Hashable, make: Callable[[Tensor, Any], Any]) -> Any:
        """The result of ``make`` under this name; it gets the tensor and its former result, whose memory it may use."""
        tensor = self._tensor.detach()
        if tensor.is_inference():
            return make(tensor, None)
        if not self.holds(name):
            self._made[name] = self._state(), make(tensor, self._made.get(name, (None, None))[1])
        return self._made[name][1]

    def _state(self) -> tuple[Any, ...]:
        tensor = self._tensor
        return tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride()


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, Engine]:
    try:
        return _declared(load(SOURCE)), Engine("winograd", f"compiled for {instructions()}")
    except (UnavailableError, AttributeError) as error:  # the second: a library without one of the functions
        return None, Engine("torch", str(error))


def compiled_code() -> ctypes.CDLL:
    """The library of the C file.

    Raises:
        RuntimeError: there is none.
    """
    library, found = _library()
    if library is None:
        raise RuntimeError(f"the compiled convolutions are not available: {found.why}")
    return library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """``library`` with the types of its functions."""
    whole, size, pointer = ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    image, strides, team = [size, *[whole] * 5], [size] * 4, [whole, pointer]
    for name, taken, given in (
        ("weight_floats", [whole, whole], size),
        ("space", [*image, whole], size),
        ("gradient_space", [*image, whole], size),
        ("weights", [pointer, pointer, whole, whole, whole, *strides, *team], None),
        ("convolve", [*[pointer] * 7, *image, whole, *team], None),
        ("weight_gradient", [*[pointer] * 5, *image, *strides, *team], None),
        ("gelu", [*[pointer] * 3, size, *team], None),
        ("chain_space", [pointer, whole, size, whole], size),
        ("chain", [pointer, whole, pointer, pointer, size, *team], None),
        ("direct", [*[pointer] * 5, size, *[whole] * 13, pointer, pointer, *team], None),
    ):
        function = getattr(library, f"winograd_{name}")
        function.argtypes, function.restype = taken, given
    return library


@functools.cache
def team() -> int | None:
    """GOMP_parallel of the OpenMP that PyTorch has loaded: its threads do the work, and no second team beside them.

    Where there is none, the C code starts threads for the call and ends them.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None


def scratch(count: int, name: str = "work") -> Tensor:
    """Scratch memory of this thread, which the next call with this name gets, too."""
    kept = getattr(_scratch, name, None)
    if kept is None or kept.numel() < count:
        kept = floats(count)
        if count <= _MAX_SCRATCH:
            setattr(_scratch, name, kept)
    return kept


def floats(count: int) -> Tensor:
    """Memory for ``count`` float32 numbers, whatever PyTorch's defaults are."""
    return torch.empty(count, dtype=torch.float32, device="cpu")


def place(tensor: Tensor | None) -> int | None:
    """Where its memory lies, for C."""
    return None if tensor is None else tensor.data_ptr()
