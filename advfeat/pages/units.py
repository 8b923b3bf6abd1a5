"""The units of a network's last hidden layer as features: usefulness in a record, and by chance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy.special import ndtr
from torch import Tensor

from advfeat import inputs
from advfeat.experiments.records import Record


def recorded_units(record: Record, name: str) -> tuple[Float[Tensor, "classes units"], Float[Tensor, "classes units"]]:
    """ρ and γ of every pair of class and unit of one network; the units of all recorded seeds stand side by side.

    They are the series ``name/rho`` and ``name/gamma``, class by class, and the setting ``classes`` of a record.
    """
    runs = [record.runs[seed] for seed in sorted(record.runs)]

    def all_units(part: str) -> Tensor:
        each = [torch.tensor(run["series"][f"{name}/{part}"]).view(len(run["config"]["classes"]), -1) for run in runs]
        return torch.cat(each, 1)

    return all_units("rho"), all_units("gamma")


def useful_by_chance(members: int, others: int, *, threshold: float = 0.2) -> float:
    """Share of useless features, of a class against the rest, whose |ρ| reaches ``threshold`` in so few images.

    The means of ``members`` and ``others`` values without any difference differ by √(1/members + 1/others) standard
    deviations, and ρ is half of that difference: asymptotic, and for values near the normal close from ten members on.

    Raises:
        ValueError: fewer than one image on a side, or a threshold that is not positive.
    """
    inputs.whole("members", members, least=1)
    inputs.whole("others", others, least=1)
    inputs.number("threshold", threshold, above=0)
    return 2 * float(ndtr(-2 * threshold / math.sqrt(1 / members + 1 / others)))
