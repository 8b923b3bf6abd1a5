"""The page of one chapter: a measured number is named once, and is thereby quoted, kept and recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd
from IPython.display import Markdown, display
from jaxtyping import Float
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Estimate, Measured, signless_zero
from advfeat.experiments.making import Trained
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.records import Record, results_root
from advfeat.experiments.run import Run
from advfeat.pages.notebook import answered, glue, paper_and_ours, recorded

Numbers = TypeVar("Numbers", bound=Sequence[float])


class Page:
    """The page of a chapter, opened once, under its title.

    A result of a cell goes through the page and comes back unchanged: ``measured``, ``trained``, ``series``, ``sheet``
    and ``table`` each take a name and a thing, keep the thing for the record under that name, and return it. At the end
    ``save`` writes the record, if one was asked for.

    Args:
        run: the experiments at the profile of this copy.
        chapter: stem of the chapter's file.
        seed: of the run in the record.
        record: whether ``save`` writes.
        settings: parameters of the chapter beyond the profile, for the record.
    """

    def __init__(
        self, run: Run, chapter: str, *, seed: int, record: bool = False, settings: Mapping[str, object] | None = None
    ) -> None:
        inputs.text("chapter", chapter)
        inputs.seed(seed)
        self.run, self.chapter, self.seed, self.record = run, chapter, seed, record
        self.settings: dict[str, object] = dict(settings or {})
        self._values: dict[str, Measured] = {}
        self._seconds: dict[str, float] = {}
        self._series: dict[str, list[float]] = {}
        self._sheets: dict[str, Tensor] = {}
        self._tables: dict[str, list[Mapping[str, object]]] = {}
        self._recorded: list[Record] | None = None

    def measured(
        self, key: str, estimate: Estimate, network: Trained | None = None, *, attack: str = "none", spec: str = ""
    ) -> Estimate:
        """Name a number: the record keeps it as ``key``, the text quotes it as ``chNN_key``; returns it.

        Args:
            key: id in the record, such as ``table1/D_rand``.
            estimate: the number with its interval.
            network: the network that it was measured on; by default the profile's own network, of the page's seed.
            attack: the attack that it was measured under, in words.
            spec: format of the quoted value, by default ``.1%`` for a rate and ``.2f`` for any other number.
        """
        inputs.text("key", key)
        inputs.instance("estimate", estimate, Estimate, "an estimates.Estimate")
        own = self.run.profile.network
        about, seed = f"{own.name}, width {own.width}", self.seed
        if network is not None:
            about, seed = network.network, network.seed
        self._values[key] = Measured.of_estimate(estimate, about, attack=attack, seed=seed)
        self.quote({key: _shown(estimate, spec)})
        return estimate

    def quote(self, numbers: Mapping[str, object] | None = None, /, *, spec: str = "", **more: object) -> None:
        """Let the text quote numbers that no record holds: ``name`` as ``chNN_name``, an estimate by its value.

        ``spec`` is the format of all numbers of this call; text stays as it is. Without one a whole number has a comma
        before each three digits, as in all outputs of the book.
        """
        for name, value in {**(numbers or {}), **more}.items():
            if isinstance(value, Estimate):
                shown: object = _shown(value, spec)
            elif type(value) is int and not spec:
                shown = f"{value:,}"
            else:
                shown = format(value, spec) if spec and not isinstance(value, str) else value
            glue(f"ch{self.chapter[:2]}_{name}", shown)

    def trained(self, name: str, network: Trained, *, curve: str = "") -> Trained:
        """Name a network: the record keeps the seconds that its training took; returns it.

        Args:
            name: of the network, for its seconds.
            network: the network with the history of its training.
            curve: name of a series for its accuracy on the training images, by epoch; empty: the record keeps none.
        """
        self._seconds[name] = network.seconds
        if curve:
            self.series(curve, [row["accuracy"] for row in network.history])
        return network

    def series(self, name: str, values: Numbers) -> Numbers:
        """Name a curve, such as accuracy by epoch, for the record; returns it."""
        self._series[name] = list(values)
        return values

    def sheet(self, name: str, grid: Float[Tensor, "rows columns 3 h w"]) -> Float[Tensor, "rows columns 3 h w"]:
        """Name a grid of images in [0, 1] for the record; returns it."""
        self._sheets[name] = grid
        return grid

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Name rows in JSON types, for results without an interval; returns them."""
        self._tables[name] = list(rows)
        return rows

    def save(self) -> None:
        """Add this run to the chapter's record and show where it is; do nothing where no record was asked for."""
        if not self.record:
            return
        run = self.run
        path = save_record(
            self.chapter,
            run.profile.name,
            seed=self.seed,
            values=self._values,
            provenance={**run.provenance, "data": run.train_set.name, "fingerprint": run.train_set.fingerprint()},
            config={**run.describe(), **self.settings},
            seconds={**self._seconds, "chapter": run.elapsed},
            series=self._series,
            sheets=self._sheets,
            tables=self._tables,
        )
        display(Markdown(f"Recorded in `{path.relative_to(results_root())}`."))

    def recorded(self, *, by: str = "") -> list[Record]:
        """Every record of the chapter, see ``notebook.recorded``; read once, so a page says once that there is none."""
        if self._recorded is None:
            self._recorded = recorded(self.chapter, by=by)
        return self._recorded

    def quote_recorded(
        self,
        numbers: Mapping[str, Callable[[Record], object]] | None = None,
        /,
        *,
        spec: str = "",
        profile: str = "",
        **more: Callable[[Record], object],
    ) -> None:
        """``quote`` each function of the chapter's first record, or of the one at ``profile``; a dash where that is not
        recorded."""
        first = [record for record in self.recorded() if profile in ("", record.profile)][:1]
        asked = {**(numbers or {}), **more}
        self.quote({name: number(first[0]) if first else "–" for name, number in asked.items()}, spec=spec)

    def beside_paper(self, rows: Mapping[str, Any], **shown: Any) -> pd.DataFrame:
        """The paper's values and the recorded ones, one row per id, see ``notebook.paper_and_ours``."""
        return paper_and_ours(self.recorded(), rows, **shown)

    def answered(self) -> Markdown:
        """The verdicts on the chapter's claims, see ``notebook.answered``."""
        return answered(self.chapter)

    def about(self, **seeds: int) -> Markdown:
        """A short table for the end of the page: settings, versions and seconds of this copy."""
        run, made = self.run, self.run.provenance
        versions = made["versions"]
        rows = {
            "profile": f"`{run.profile.name}`: {run.profile.description}",
            "seeds": ", ".join(f"{name} {value}" for name, value in seeds.items()),
            "device": f"{run.device.type}, {made['device']}",
            "versions": ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "torchvision", "advfeat")),
            "time": f"{run.elapsed:.0f} s for the cells above",
        }
        lines = ["| about this run | |", "|---|---|", *(f"| **{key}** | {value} |" for key, value in rows.items())]
        return Markdown("\n".join(lines))


def _shown(estimate: Estimate, spec: str = "") -> str:
    """The value of an estimate as the text quotes it; ``spec`` is by default ``.1%`` for a rate, otherwise ``.2f``."""
    return format(estimate.value, signless_zero(spec or (".1%" if estimate.rate else ".2f")))
