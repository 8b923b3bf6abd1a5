"""Checks of arguments, with their messages: whether an argument is of the kind that a function accepts.

Every check raises ``TypeError`` for a wrong type or dtype and ``ValueError`` for a wrong shape or value. The message
begins with the argument's name and names the accepted and the given values. Checks of names, types, shapes and single
numbers cost next to nothing. ``look`` checks the values of several tensors at once: on a GPU one read-back per call.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

FLOAT32 = (torch.float32,)
FLOAT64 = (torch.float64,)
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INT64 = (torch.int64,)
BOOL = (torch.bool,)
BOX = (0.0, 1.0)
"""The range of pixel values."""
FINITE = (-math.inf, math.inf)
"""The range of all finite numbers: no NaN, no infinity."""

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Switch ``look`` off, for loops over pieces of a whole that has been checked, such as a ``Dataset``."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> None:
    """A whole number, not below ``least`` and not above ``most``."""
    if not _is_whole(value):
        raise TypeError(f"{name} must be a whole number, got {_shown(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {'positive' if name == 'batch_size' else f'{least} or more'}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be {most} or less, got {value}")


def seed(value: Any, name: str = "seed") -> None:
    """A whole number in [0, 2³²): PyTorch's generator keeps 32 bits, so larger seeds would repeat smaller ones."""
    if not _is_whole(value):
        raise TypeError(f"{name} must be an integer in [0, 2**32), got {_shown(value)}")
    if not 0 <= value < 2**32:
        raise ValueError(f"{name} must be an integer in [0, 2**32), got {value}: larger ones would repeat smaller ones")


def real(name: str, value: object) -> None:
    """Any number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")


def radius(name: str, value: Any) -> None:
    """A number from 0 to infinity."""
    real(name, value)
    if value != math.inf:
        number(name, value, least=0)


def number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: float | None = None
) -> None:
    """A finite number in [least, most], or in (above, most]."""
    real(name, value)
    low = least if above is None else above
    fits = value >= low if above is None else value > low
    if not (fits and value <= most and math.isfinite(value)):  # a NaN fails every comparison
        if most < math.inf:
            words = f"in {'[' if above is None else '('}{low:g}, {most:g}]"
        elif above == 0:
            words = "positive" if value != math.inf else "positive and finite"
        else:
            words = "finite" if low == -math.inf else f"{low:g} or more" + (" and finite" if value == math.inf else "")
        raise ValueError(f"{name} must be {words}, got {value}")


def step_size(value: Any, *, limit: float, of: object, name: str = "step_size") -> None:
    """A positive length in pixel units, at most ``limit``, the diameter of the set that the steps stay inside."""
    number(name, value, above=0)
    if value > limit * (1 + 1e-6):
        raise ValueError(f"{name} must be at most {limit:g}, the diameter of {of}, got {value}; in levels of 255?")


def flag(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_shown(value)}")


def one_of(name: str, value: object, accepted: Iterable[str]) -> None:
    """One of the names in ``accepted``."""
    known = list(accepted)
    if not isinstance(value, str) or value not in known:
        words = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}" if len(known) > 1 else repr(known[0])
        raise (ValueError if isinstance(value, str) else TypeError)(f"{name} must be {words}, got {_shown(value)}")


def text(name: str, value: object) -> None:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {_shown(value)}")


def path(name: str, value: object) -> None:
    """The path of a file or folder."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {_shown(value)}")


def instance(name: str, value: object, kinds: type | tuple[type, ...], words: str) -> None:
    """An object of one of these types; ``words`` describes them in the message."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {words}, got {_shown(value)}")


def function(name: str, value: object, words: str) -> None:
    """A callable; ``words`` describes its arguments in the message."""
    if not callable(value):
        raise TypeError(f"{name} must be a function {words}, got {_shown(value)}")


def generator(value: object, name: str = "generator") -> None:
    """A ``torch.Generator`` of the CPU: all draws are made there, so that they are the same on every device."""
    if not isinstance(value, torch.Generator):
        raise TypeError(f"{name} must be a torch.Generator, got {_shown(value)}")
    if value.device.type != "cpu":
        raise ValueError(f"{name} must be a generator of the CPU, got one of {value.device}")


def network(value: object, name: str = "model", *, inside: bool = False) -> None:
    """A network; with ``inside``, a network that gives its representation."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module that maps images to logits, got {_shown(value)}")
    if inside and not callable(getattr(value, "representation", None)):
        raise TypeError(
            f"{name} must be a models.Classifier (see build_model), whose representation is asked for, "
            f"got {type(value).__name__}"
        )


def logits(found: object, count: int, classes: int = 1, *, name: str = "model", what: str = "logits") -> None:
    """The output of a network for ``count`` images: a row of at least ``classes`` logits for each."""
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != count or not found.is_floating_point():
        raise TypeError(f"{name} must answer {count} images with {what} ({count}, classes), got {_shown(found)}")
    if found.shape[1] < classes:
        raise ValueError(f"{name} knows {found.shape[1]} classes, but labels go up to {classes - 1}")


def gradients_possible(model: nn.Module) -> None:
    """Attacks need gradients, which PyTorch's inference mode rules out (``torch.no_grad`` does not)."""
    if torch.is_inference_mode_enabled():
        raise ValueError("torch.inference_mode is on: an attack needs gradients; leave it, or use torch.no_grad")
    weight = next(model.parameters(), None)
    if weight is not None and weight.is_inference():
        raise ValueError(
            "model was made inside torch.inference_mode, which rules out gradients through it; make it outside"
        )


def tensor(
    name: str, value: object, shape: str, dtypes: tuple[torch.dtype, ...] = FLOAT32, *, like: str = "", **sizes: int
) -> dict[str, Any]:
    """A tensor of one of the ``dtypes`` and of a shape such as ``"n 3 h w"``, exactly: nothing is broadcast.

    Args:
        like: name of the tensor that determined ``sizes``, for the message.
        sizes: letter → size that is known already.

    Returns:
        ``sizes`` with the letters of this tensor, for the next tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {_shown(value)}")
    if value.dtype not in dtypes:
        words = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be {words}, got {value.dtype}")
    known, letters = dict(sizes), shape.split()
    fits = value.ndim == len(letters)
    for letter, size in zip(letters, value.shape, strict=False):
        fits &= size == (int(letter) if letter.isdigit() else known.setdefault(letter, size))
    if not fits:
        said = ", ".join(_DIMENSIONS.get(letter, letter) for letter in letters) + ("," if len(letters) == 1 else "")
        given = [f"{_DIMENSIONS.get(letter, letter)}={sizes[letter]}" for letter in letters if letter in sizes]
        known_from = f" with {', '.join(given)}" + (f" as {like} has" if like else "") if given else ""
        raise ValueError(f"{name} must have shape ({said}){known_from}, got {tuple(value.shape)}")
    return known


_DIMENSIONS = {"h": "height", "w": "width"}


def images(value: Any, name: str = "images", *, model: object = None, least: int = 0, **sizes: int) -> dict[str, Any]:
    """float32 images (n, channels, height, width): ``least`` or more, with the channels of ``model``, on its device.

    The pixel values are checked by ``look``.
    """
    known = tensor(name, value, "n c h w", FLOAT32, like="", **sizes)
    mean: Any = getattr(model, "mean", None)
    if isinstance(mean, Tensor) and mean.ndim == 4:
        tensor(name, value, f"n {mean.shape[1]} h w", FLOAT32)
        if mean.device != value.device:
            raise ValueError(f"{name} are on {value.device}, but the model is on {mean.device}")
    if len(value) < least:
        raise ValueError(f"{name} must be {least} or more, got {len(value)}")
    if 0 in (known["c"], known["h"], known["w"]):
        raise ValueError(f"{name} must have pixels, got shape {tuple(value.shape)}")
    return known


def labels(value: Any, name: str = "labels", *, count: int | None = None, beside: str = "images") -> None:
    """One class number, int64, for each of ``count`` images (``beside`` names them); ``look`` checks the values."""
    hint = "one class number per image, int64; labels.argmax(1) makes that of one-hot rows"
    if isinstance(value, Tensor) and (value.dtype != torch.int64 or value.ndim != 1):
        wrong = TypeError if value.dtype != torch.int64 else ValueError
        what = "int64" if value.dtype != torch.int64 else "of shape (n,)"
        raise wrong(f"{name} must be {what}, got {value.dtype} {tuple(value.shape)}: {hint}")
    tensor(name, value, "n", INT64)
    if count is not None and count != len(value):
        raise ValueError(f"{count} {beside} but {len(value)} {name}")


def look(*named: tuple[str, Tensor, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Check the values of several tensors at once; each must be finite and lie in its range.

    Args:
        named: name, tensor, and the smallest and largest accepted value, for each tensor.

    Returns:
        Name → smallest and largest value, for tensors that are not empty; empty inside ``trusted``.
    """
    full = [(name, values.detach(), ends) for name, values, ends in named if values.numel()]
    if _trusted.get() or not full:
        return {}
    device = full[0][1].device
    extremes = [torch.stack(torch.aminmax(values)).to(device, torch.float64) for _, values, _ in full]
    found = {name: (low, high) for (name, _, _), (low, high) in zip(full, torch.stack(extremes).tolist(), strict=True)}
    for name, values, (least, most) in full:
        low, high = found[name]
        if least <= low <= high <= most and math.isfinite(low) and math.isfinite(high):
            continue
        if not values.is_floating_point():
            words = f"in [{int(least)}, {int(most) + 1})" if most < math.inf else f"at or above {int(least)}"
            raise ValueError(f"{name} must lie {words}, got {int(low)} to {int(high)}")
        words = "be finite" if (least, most) == FINITE else f"lie in [{least:g}, {most:g}]"
        hint = _hint(low, high) if (least, most) == BOX else ""
        raise ValueError(f"{name} must {words}, got values from {low:.4g} to {high:.4g}{hint}")
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _hint(low: float, high: float) -> str:
    if low >= 0 and high > 16:
        return "; divide levels of 255 by 255"
    return "; normalisation belongs inside the model" if low < 0 < 1 < high else ""


def _shown(value: object) -> str:
    """A short description of a value."""
    if isinstance(value, Tensor):
        return f"a tensor {value.dtype} {tuple(value.shape)}"
    if value is None or isinstance(value, bool | str | Real):
        return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
    return f"a {type(value).__name__}" if not isinstance(value, type) else f"the class {value.__name__}"
