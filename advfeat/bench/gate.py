"""Verdicts on the engine, and the error that keeps anything from being timed while one of them is bad."""

from __future__ import annotations

from dataclasses import dataclass

U = 2.0**-24
"""Unit roundoff of float32: one operation is off by at most this share of its result."""


class GateFailed(RuntimeError):
    """The engine is further from the reference than rounding explains. The message holds every verdict."""


@dataclass(frozen=True)
class Verdict:
    """The largest error of one case over all pixels, and the most that rounding explains."""

    case: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; one that is no number is not."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.case:36s} error {self.error:.1e}, bound {self.bound:.1e}"


def require_all(verdicts: list[Verdict]) -> None:
    """Pass in silence, or raise ``GateFailed``: everything that is timed after this is known to be right."""
    if not verdicts or not all(verdict.passed for verdict in verdicts):
        raise GateFailed("the engine is not its reference, so no time is measured\n" + "\n".join(map(str, verdicts)))
