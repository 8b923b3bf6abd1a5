"""Timed contests: the engine and other libraries make the same attack, and only equal attacks are compared.

There are two comparisons. *As a user calls them*: every library gets the same network in float32 and calls its own
attack; ours freezes the network first, once for all batches. *Engine only*: every library attacks our frozen network,
so only the loop differs. A time counts under three conditions. The attack leaves the same robust accuracy as ours, to
0.2 points or one image, measured by the unfrozen network in float32. That accuracy can tell attacks apart. The images
lie in the ball and in the box. A library that fails gets a row that gives the reason.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from advfeat.attacks import pgd
from advfeat.bench import timing
from advfeat.bench.peers import PEERS, Setting, first_line
from advfeat.bench.timing import Ratio
from advfeat.data import Dataset
from advfeat.models import Classifier, build_model, freeze
from advfeat.planted import PlantedWorld, planted
from advfeat.threats import L2, usual_step_size

OURS, BARE = "advfeat", "bare"
EPS = {"resnet9": 1.0, "resnet18": 0.3}
"""ℓ2 radii at which the contest's networks are neither robust nor hopeless."""
TOLERANCE = 0.002
INFORMATIVE_ACCURACY = (0.02, 0.98)
"""Robust accuracies that tell a weak attack from a strong one."""
SCREENING_ROUNDS = 2
"""Rounds with every peer; only the fastest, and peers within ``CONTENDER_RATIO`` of its time, run further rounds."""
CONTENDER_RATIO = 1.15
WARM_SECONDS = 1.0
"""An attack that takes longer on a CPU hardly notices the cost of first use, so the judged attack counts as a round."""

Makers = Mapping[str, Callable[[Setting], Callable[[], Tensor]]]


@dataclass(frozen=True)
class TimedCase:
    """``rounds`` runs of every contender with ``steps`` steps on one batch, of all peers or of the fastest so far.

    ``weight`` is the case's share of the time, relative to the weights of the other cases.
    """

    network: str
    batch: int
    steps: int
    rounds: int = 7
    all_peers: bool = True
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The name in the ids of the record."""
        return f"{self.network}-l2-b{self.batch}"


@dataclass(frozen=True)
class CaseResult:
    """The outcome of one case, by contender: seconds of each round, robust accuracy, and why its time is void."""

    comparison: str
    case: TimedCase
    times: dict[str, list[float]]
    robust: dict[str, float]
    void: dict[str, str]

    @property
    def ranking(self) -> list[str]:
        """The peers whose times count, fastest first."""
        counted = (name for name in self.times if name not in (OURS, BARE))
        return sorted(counted, key=lambda name: median(self.times[name]))

    def against(self, name: str) -> Ratio:
        """Time of ``name`` over ours in the same round: above 1 we are faster."""
        times = self.times[name]
        return Ratio.of(times, self.times[OURS][: len(times)])

    def over_bare(self) -> Ratio:
        """Our time over that of the forward passes and gradients alone."""
        return Ratio.of(self.times[OURS], self.times[BARE])

    def lines(self) -> Iterator[dict[str, object]]:
        """One line of the table for each contender, ours first: its ratio, or the reason why there is none."""
        about = {"comparison": self.comparison, "network": self.case.network, "batch": self.case.batch,
                 "steps": self.case.steps}  # fmt: skip
        for name in (OURS, *self.ranking, *(name for name in self.void if name != OURS)):
            line = {**about, "contender": name, "robust": self.robust.get(name), "void": self.void.get(name, "")}
            if name in self.ranking:
                line |= _spread(self.against(name))
            yield line
        if BARE in self.times and OURS in self.times:
            yield {**about, "contender": BARE, "robust": None, "void": "", **_spread(self.over_bare())}


def _spread(ratio: Ratio) -> dict[str, object]:
    return {"ratio": ratio.median, "lower": ratio.lower, "upper": ratio.upper, "pairs": ratio.pairs}


class Contest:
    """The networks and the images on one device.

    The networks have seeded random weights, which cost the same time as trained ones, and the labels are the networks'
    own predictions, so nothing has to be trained or downloaded. Each filter is averaged over its window, which makes
    the networks smooth: their robust accuracy falls over radii like the paper's.

    Args:
        makers: name of a peer → function that makes the peer's attack from a setting.
        width: width of the networks; None for the default of each.
    """

    def __init__(
        self, device: torch.device, makers: Makers | None = None, *, seed: int = 0, width: int | None = None
    ) -> None:
        self.device, self.seed, self.width = device, seed, width
        self.makers = {name: make for name, (_, make) in PEERS.items()} if makers is None else makers
        self.images = planted(PlantedWorld(), 1000, seed=2).images.to(device)
        self._networks: dict[str, tuple[Classifier, Dataset]] = {}

    def network(self, name: str) -> tuple[Classifier, Dataset]:
        """A network in eval mode, and the images labelled by its predictions."""
        if name not in self._networks:
            model = build_model(name, width=self.width, seed=self.seed).to(self.device)
            with torch.no_grad():
                for layer in model.modules():
                    if isinstance(layer, nn.Conv2d):
                        layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
                    if isinstance(layer, nn.BatchNorm2d):
                        layer.momentum = None  # statistics of the images below alone, not mixed with the initial ones
                model.train()(self.images[:128])
                labels = torch.cat([model.eval()(part).argmax(1) for part in self.images.split(250)])
            names = tuple(f"answer {k}" for k in range(model.head.out_features))
            self._networks[name] = model, Dataset(self.images, labels, names, "planted, labelled by the network")
        return self._networks[name]

    def compare(
        self, comparison: str, case: TimedCase, peers: Sequence[str], *, deadline: float = float("inf")
    ) -> CaseResult:
        """Judge one case, then time it. After ``deadline`` (of ``time.monotonic``) no round after the second begins.

        Args:
            comparison: ``user`` or ``engine``.
        """
        model, data = self.network(case.network)
        data, threat = data.subset(slice(0, case.batch)), L2(EPS[case.network])
        size, frozen = usual_step_size(threat, case.steps), freeze(model)
        setting = Setting(model if comparison == "user" else frozen, data.images, data.labels, threat.eps, case.steps,
                          size)  # fmt: skip
        ours = functools.partial(pgd, frozen, data.images, data.labels, threat, steps=case.steps, step_size=size)
        runs: dict[str, Callable[[], object]] = {}
        robust: dict[str, float] = {}
        void: dict[str, str] = {}
        times: dict[str, list[float]] = {}
        for name in (OURS, *peers):
            attack: Callable[[], Tensor] = ours
            try:
                if name != OURS:
                    attack = _restoring_eval(setting.model, self.makers[name](setting))
                start = time.perf_counter()
                adv = attack()
                taken = time.perf_counter() - start
            except Exception as error:
                if name == OURS:
                    raise
                void[name] = f"did not run: {first_line(error)}"
                continue
            robust[name] = share_left(model, adv, data)
            fault = faults(adv, data, threat, robust[name], robust[OURS])
            if fault:
                void[name] = fault
            else:
                runs[name] = attack
                times[name] = [taken] if self.device.type == "cpu" and taken > WARM_SECONDS else []
        if OURS in void:
            return CaseResult(comparison, case, {}, robust, void)
        if comparison == "engine":
            runs[BARE] = timing.bare(frozen, data.images, data.labels, steps=case.steps)
            start = time.perf_counter()
            runs[BARE]()  # now as warm as the attacks, which have just been judged
            times[BARE] = [time.perf_counter() - start] if times[OURS] else []
        return CaseResult(comparison, case, self._timed(runs, times, case.rounds, deadline), robust, void)

    def _timed(
        self, runs: Mapping[str, Callable[[], object]], times: dict[str, list[float]], rounds: int, deadline: float
    ) -> dict[str, list[float]]:
        """Bring ``times`` to ``rounds`` rounds; it holds the time of a judged attack if that counts as a round."""
        # If the judged attack of one contender was too short to count as a round, no judged attack counts.
        judged = min(len(values) for values in times.values())
        times = {name: values[:judged] for name, values in times.items()}
        turns = functools.partial(timing.interleaved, device=self.device, warm_up=False)
        for name, values in turns(runs, rounds=min(SCREENING_ROUNDS, rounds) - judged).items():
            times[name] += values
        peers = [name for name in runs if name not in (OURS, BARE)]
        best = min((median(times[name]) for name in peers), default=0.0)
        limit = CONTENDER_RATIO * best
        going_on = {name: run for name, run in runs.items() if name not in peers or median(times[name]) <= limit}
        if rounds > SCREENING_ROUNDS and time.monotonic() < deadline:
            more = turns(going_on, rounds=rounds - SCREENING_ROUNDS, deadline=deadline)
            times = {name: values + more.get(name, []) for name, values in times.items()}
        return times


def _restoring_eval(model: nn.Module, attack: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``attack``, after which ``model`` is in eval mode: some libraries leave it in training mode."""

    def run() -> Tensor:
        try:
            return attack()
        finally:
            if model.training:
                model.eval()

    return run


def share_left(model: Classifier, adv: Tensor, data: Dataset) -> float:
    """The share of attacked images that ``model`` still classifies as labelled."""
    # The images are no Dataset, which refuses pixels outside [0, 1]: those of another library may have some.
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in adv.split(250)])
    return float((answers == data.labels).float().mean())


def faults(adv: Tensor, data: Dataset, threat: L2, robust: float, ours: float) -> str:
    """Why the time of an attack does not count: its images are not admissible, or it is not as strong as ours.

    An image lies outside the ball if its distance exceeds the radius by more than the rounding of a norm.
    """
    found, count = [], len(data)
    if not float(threat.distance(adv, data.images).max()) <= threat.eps * (1 + 1e-5):
        found.append("images outside the ball")
    if not 0 <= float(adv.min()) <= float(adv.max()) <= 1:
        found.append("pixels outside the box")
    # One image is the smallest difference between two shares; the factor 1.001 allows for rounding.
    if abs(robust - ours) > max(TOLERANCE, 1 / count) * 1.001:
        found.append(f"robust accuracy {robust:.1%}, ours {ours:.1%}")
    low, high = INFORMATIVE_ACCURACY
    if count > 1 and not low <= ours <= high:
        found.append(f"a robust accuracy of {ours:.1%} does not tell attacks apart")
    return "; ".join(found)
