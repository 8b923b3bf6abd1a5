"""Helpers by which the tests of the problem sets accept an answer in any reasonable form.

A right answer may be a Python float, a tensor without dimensions or a NumPy number, an array or a tensor of any
floating-point type, and functions may be called by position or by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def number(value: Any) -> float:
    """``value`` as a float: a Python or NumPy number, or a tensor or an array with one element.

    Raises:
        TypeError: ``value`` is anything else. A string is not a number, even if it looks like one.
    """
    if isinstance(value, Tensor | np.ndarray) and value.shape.count(1) == len(value.shape):
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"a number is needed here, got {value!r:.80} ({type(value).__name__})")
    return float(value)


def close(value: Any, expected: float, *, within: float) -> bool:
    """Whether ``value`` is a number less than ``within`` away from ``expected``; anything but a number is not close."""
    try:
        return abs(number(value) - expected) < within
    except TypeError:
        return False


def tensor(value: Any) -> Float64[Tensor, "..."]:
    """``value``, a tensor, an array, or a list of them or of numbers, as a detached tensor in double precision.

    Raises:
        TypeError: ``value`` cannot be read as real numbers.
    """
    if isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
        value = torch.stack(list(value))
    try:
        found = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"a tensor is needed here, got {type(value).__name__}: {error}") from None
    if found.is_complex():
        raise TypeError("real numbers are needed here, got complex ones; take .real")
    return found.double()


@contextmanager
def exchanged(notebook: dict[str, Any], /, **known: Callable[..., Any]) -> Iterator[None]:
    """Replace functions of a notebook by known ones, so that a test checks one function alone.

    A known function accepts every call that the function in the notebook accepts: by position, or by the parameter
    names of the notebook. A function to which the notebook added parameters is not replaced, because the known function
    does not have them.

    Args:
        notebook: its ``globals()``.
        known: name in the notebook → function to put there.
    """
    before = {name: notebook[name] for name in known if name in notebook}
    notebook.update({name: _in_place_of(before.get(name), function) for name, function in known.items()})
    try:
        yield
    finally:
        for name in known.keys() - before.keys():
            notebook.pop(name, None)
        notebook.update(before)


def _in_place_of(yours: Any, known: Callable[..., Any]) -> Callable[..., Any]:
    """``known`` with the signature of ``yours``; or ``yours``, if its number of parameters differs."""
    try:
        signature = inspect.signature(yours)
    except (TypeError, ValueError):  # it does not exist, or is not a function
        return known
    parameters = inspect.signature(known).parameters.values()
    by_name = not any(parameter.kind in _ANY_NUMBER for parameter in signature.parameters.values())
    if by_name and len(signature.parameters) != len(parameters):
        other: Callable[..., Any] = yours
        return other

    def stand_in(*given: Any, **named: Any) -> Any:
        if by_name:
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            pairs = list(zip(parameters, bound.arguments.values(), strict=True))
            given = tuple(value for parameter, value in pairs if parameter.kind != parameter.KEYWORD_ONLY)
            named = {parameter.name: value for parameter, value in pairs if parameter.kind == parameter.KEYWORD_ONLY}
        arrays = any(isinstance(value, np.ndarray) for value in (*given, *named.values()))
        result = known(*map(_as_tensor, given), **{name: _as_tensor(value) for name, value in named.items()})
        return result.numpy() if arrays and isinstance(result, Tensor) else result

    return stand_in


def _as_tensor(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value
