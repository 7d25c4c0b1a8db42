"""What an evaluation found: as a table, as plain values, as a picture, as run files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.evaluation.measures import run_of, write_run
from m3_core.evaluation.significance import compare_values
from m3_core.extras import needs_extra

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m3_core.evaluation.measures import Measured, Run
    from m3_core.evaluation.pool import Ranking
    from m3_core.evaluation.significance import Difference
    from m3_core.evaluation.tuning import Advice


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of every way of ranking, and what to make of them.

    Attributes:
        data: The collection's name.
        model: The model's name.
        documents: Ids of the documents.
        queries: Ids of the queries.
        measured: By setting.
        rankings: By setting; those of run files that were read are not here.
        notes: How documents were chosen, and what was left out.
        encoded: How many texts, queries and documents, were encoded for it.
        advice: Weights that fit the data: of all representations, and of dense and lexical
            scores, as without multi-vectors. Empty if that was not asked or there is one
            representation only.
        baseline: The setting or run that the others are compared with; ``None`` if there is one
            only.
    """

    data: str
    model: str
    documents: tuple[str, ...]
    queries: tuple[str, ...]
    measured: dict[str, Measured]
    rankings: dict[str, Ranking] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    encoded: int = 0
    advice: tuple[Advice, ...] = ()
    baseline: str | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures."""
        return tuple(next(iter(self.measured.values())).values)

    def __getitem__(self, setting: str) -> dict[str, float]:
        """The means of a setting's measures."""
        return self.measured[setting].means

    def against(
        self, baseline: str | None = None, measure: str | None = None
    ) -> dict[str, Difference]:
        """Compare every other setting with one.

        Args:
            baseline: The setting to compare with; that of the evaluation if ``None``.
            measure: By which measure; the first if ``None``.

        Returns:
            Differences by setting.

        Raises:
            ValueError: There is no such setting or measure.
        """
        baseline, name = baseline or self.baseline, measure or self.measures[0]
        if baseline not in self.measured or name not in self.measures:
            raise ValueError(
                f"compared can be {', '.join(self.measured)} by {', '.join(self.measures)}; got "
                f"{baseline!r} by {name!r}"
            )
        base = self.measured[baseline].values[name]
        return {
            setting: compare_values(one.values[name], base)
            for setting, one in self.measured.items()
            if setting != baseline
        }

    def run(self, setting: str) -> Run:
        """Give a ranking with the ids of queries and documents.

        Args:
            setting: Which one.

        Returns:
            Scores of documents by query, best first.
        """
        return run_of(self.queries, self.documents, self.rankings[setting])

    def write_runs(self, folder: str | Path) -> dict[str, Path]:
        """Write a run file of TREC for each setting.

        Args:
            folder: Where to; made if need be.

        Returns:
            The files by setting.

        Raises:
            ValueError: An id cannot be written.
            OSError: A file cannot.
        """
        written = {}
        for setting in self.rankings:
            file = Path(folder) / f"{file_name(setting)}.trec"
            write_run(file, self.run(setting), setting)
            written[setting] = file
        return written

    def to_json(self) -> dict[str, Any]:
        """Give everything but rankings and single queries as plain values.

        Returns:
            A dictionary for ``json.dumps``.
        """
        found: dict[str, Any] = {
            "data": self.data,
            "model": self.model,
            "documents": len(self.documents),
            "queries": len(self.queries),
            "texts_encoded": self.encoded,
            "results": {name: one.means for name, one in self.measured.items()},
            "notes": list(self.notes),
        }
        if self.baseline is not None:
            found["baseline"] = self.baseline
            found["significance"] = {name: one.to_json() for name, one in self.against().items()}
        found["advice"] = [one.to_json() for one in self.advice]
        return found

    def to_table(self) -> tuple[list[str], list[list[str]]]:
        """Give the measures as a table, with differences to the baseline and their p-values.

        Returns:
            The heads of the columns, and the rows.
        """
        heads = ["", *self.measures]
        rows = []
        compared = {} if self.baseline is None else self.against()
        if compared:
            heads += [f"{self.measures[0]} against {self.baseline}", "p"]
        for name, one in self.measured.items():
            row = [name, *(f"{value:.4f}" for value in one.means.values())]
            if name in compared:
                row += [f"{compared[name].mean:+.4f}", f"{compared[name].p_randomisation:.4f}"]
            elif compared:
                row += ["", ""]
            rows.append(row)
        return heads, rows


def file_name(setting: str) -> str:
    """Make a file's name of a setting's.

    Args:
        setting: Its name.

    Returns:
        Letters, digits, dots, dashes and plus signs.

    Example:
        >>> file_name("all 1/0.3/1")
        'all-1-0.3-1'
    """
    return re.sub(r"[^\w.+-]+", "-", setting).strip("-")


def plot(evaluations: Mapping[str, Evaluation], path: str | Path, measure: str) -> Path:
    """Draw one measure of every setting with its 95 % interval over queries.

    Args:
        evaluations: By the name that the legend shall say: models or collections.
        path: The picture; its ending says of what kind, ``.png``, ``.svg`` or ``.pdf``.
        measure: Which one.

    Returns:
        The picture's path.

    Raises:
        MissingPackageError: matplotlib is absent.
        ValueError: There is no such measure, or no such kind of picture.
    """
    with needs_extra("a plot", "evaluate", "matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    names = list(dict.fromkeys(name for one in evaluations.values() for name in one.measured))
    path = Path(path)
    # No pyplot: it keeps figures, and asks for a screen.
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(names) * max(1, len(evaluations))))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    thick = 0.8 / len(evaluations)
    for number, (label, one) in enumerate(evaluations.items()):
        if measure not in one.measures:
            raise ValueError(f"measure {measure!r} is not among {', '.join(one.measures)}")
        shown = [name for name in names if name in one.measured]
        values = [one.measured[name].values[measure] for name in shown]
        errors = [
            1.96 * float(value.std(ddof=1)) / len(value) ** 0.5 if len(value) > 1 else 0.0
            for value in values
        ]
        places = [names.index(name) + number * thick for name in shown]
        means = [float(value.mean()) for value in values]
        axes.barh(places, means, thick, xerr=errors, label=label, capsize=2)
        for place, mean in zip(places, means, strict=True):
            axes.text(0.005, place, f"{mean:.3f}", va="center", color="white", fontsize=8)
    axes.set_yticks([one + thick * (len(evaluations) - 1) / 2 for one in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(f"{measure}, mean and 95 % interval over queries")
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    if len(evaluations) > 1:
        axes.legend(loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
