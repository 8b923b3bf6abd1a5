"""This build beside one from before the library's own convolutions, taken from git, each in processes of its own.

The earlier build needs nothing that this one does not, so the same Python and the same packages run both, and only
``advfeat`` differs. The two take turns, as contenders of one process do in ``timing.interleaved``.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from advfeat.bench import build_step
from advfeat.bench.timing import Ratio
from advfeat.checkout import CHECKOUT

EARLIER = "aea1a39cfbe2098581c917f08c4dadd8026b866c"
"""The commit of the earlier build, from before ``winograd.c``: the one that this one's targets are set against."""

PARTS: dict[str, tuple[str, ...]] = {
    "convolutions": ("conv", "winograd", "direct"),
    "activations": ("relu", "clamp", "gelu", "threshold"),
    "sums": ("aten::add", "aten::sum"),
    "pooling": ("pool", "aten::mean"),
    "copies": ("copy", "clone", "contiguous", "empty", "to_mkldnn", "fill", "zero"),
}
"""Part of a step → words in the names of its operations; an operation belongs to the first part that fits."""


class BuildUnavailableError(Exception):
    """The earlier build cannot be had or run here; the message says why."""


@dataclass(frozen=True)
class BuildTask:
    """What both builds do, see ``build_step.prepared``; the first four make its name in the ids of the record."""

    kind: str
    network: str
    batch: int
    steps: int
    rounds: int = 5
    width: int | None = None

    @property
    def name(self) -> str:
        """As in ``attack-resnet18-b128``."""
        return f"{self.kind}-{self.network}-b{self.batch}"

    @property
    def words(self) -> str:
        """As a record describes it."""
        what = {
            "attack": f"l2 PGD-{self.steps}",
            "train": f"{self.steps} training steps",
            "adversarial": f"one training step on l2 PGD-{self.steps}",
        }[self.kind]
        return f"{what}, batch {self.batch}"


@dataclass(frozen=True)
class Compared:
    """Time and added memory of the earlier build over those of this one; None where the system reports no memory."""

    time: Ratio
    memory: float | None


def unpacked(folder: Path, commit: str = EARLIER) -> Path:
    """The tree of a commit in ``folder``, from this checkout's git.

    Raises:
        BuildUnavailableError: there is no git, or it does not know the commit.
    """
    command = ["git", "archive", "--format=tar", commit, "advfeat"]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
    except OSError as error:
        raise BuildUnavailableError(f"git cannot be run: {error}") from error
    if done.returncode:
        raise BuildUnavailableError(f"git has no commit {commit[:7]} here: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Build:
    """A process that holds one task of one build."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.package = Path(self._answer()["package"])

    def ask(self, word: str) -> Any:
        """The answer to ``memory``, ``time`` or ``profile``.

        Raises:
            BuildUnavailableError: the process has ended, or does not know.
        """
        try:
            print(word, file=self._process.stdin, flush=True)
        except OSError as error:
            raise BuildUnavailableError(f"the process of {self.package} has ended: {error}") from error
        return self._answer()

    def _answer(self) -> Any:
        line = next(iter(self._process.stdout or ()), "")
        if not line:
            raise BuildUnavailableError(f"a process of a build ended with {self._process.wait()}, see above")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise BuildUnavailableError(answer["error"])
        return answer


@contextmanager
def started(task: BuildTask, tree: Path) -> Iterator[Build]:
    """A ``Build`` of the tree of a commit, or of ``CHECKOUT``, which ends with the block.

    Raises:
        BuildUnavailableError: it cannot prepare the task, or imports another package than that of ``tree``.
    """
    about = {key: value for key, value in asdict(task).items() if key != "rounds"}
    command = [sys.executable, "-P", str(Path(build_step.__file__)), json.dumps(about)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "ADVFEAT_PROGRESS": "off", "KINETO_LOG_LEVEL": "99"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
    ) as process:
        try:
            build = Build(process)
            if build.package.resolve() != (tree / "advfeat").resolve():
                raise BuildUnavailableError(f"{build.package} was imported instead of that in {tree}")
            yield build
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.kill()


def beside(task: BuildTask, earlier: Path) -> Compared:
    """Time and memory of one task in both builds, which take turns; the first run of each is for memory, untimed.

    Raises:
        BuildUnavailableError: one of the builds cannot run it.
    """
    with started(task, earlier) as before, started(task, CHECKOUT) as now:
        memory: float | None
        try:
            memory = before.ask("memory") / max(1.0, now.ask("memory"))
        except BuildUnavailableError:
            memory = None
        times: dict[Build, list[float]] = {before: [], now: []}
        order = [before, now]
        for _ in range(task.rounds):
            for build in order:
                times[build].append(build.ask("time"))
            order.reverse()
    return Compared(Ratio.of(times[before], times[now]), memory)


def parts(task: BuildTask, earlier: Path) -> dict[str, dict[str, float]]:
    """Build (``before``, ``now``) → part of the task → its share of the time before, by PyTorch's profiler.

    Medians of ``task.rounds`` profiles, taken in turns. ``rest`` is what no part names, the interpreter included.

    Raises:
        BuildUnavailableError: one of the builds cannot run the task.
    """
    found: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    with started(task, earlier) as before, started(task, CHECKOUT) as now:
        for build in (before, now):
            build.ask("time")
        for _ in range(task.rounds):
            for name, build in (("before", before), ("now", now)):
                found[name].append(by_part(build.ask("profile")))
    whole = median(sum(one.values()) for one in found["before"])
    return {
        name: {part: median(one[part] for one in profiles) / whole for part in profiles[0]}
        for name, profiles in found.items()
    }


def by_part(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by operation, and ``total``, as seconds by part."""
    found = dict.fromkeys(PARTS, 0.0)
    for operation, taken in seconds.items():
        name = operation.lower()
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), None)
        if part is not None and operation != "total":
            found[part] += taken
    return found | {"rest": seconds["total"] - sum(found.values())}
