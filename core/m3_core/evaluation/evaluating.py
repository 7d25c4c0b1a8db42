"""From a model and a test collection to the measures of every way of ranking."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder import PARTS
from m3_core.errors import EvaluationDataError, MissingRepresentationError
from m3_core.evaluation.measures import (
    ANSWER_MEASURES,
    MEASURES,
    Measured,
    judge_by_answers,
    measure_ranking,
    measure_run,
    parse_measures,
)
from m3_core.evaluation.pool import Pool, Ranking, build_pool
from m3_core.evaluation.report import Evaluation
from m3_core.evaluation.settings import DEFAULT, settings_for
from m3_core.evaluation.shards import encode_texts
from m3_core.evaluation.tuning import fit_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder import TextEncoder
    from m3_core.evaluation.data import Qrels, RetrievalData
    from m3_core.evaluation.pool import Scope
    from m3_core.evaluation.settings import Setting, Weights
    from m3_core.evaluation.tuning import Advice
    from m3_core.rerankers import Reranker

# What an answer is looked for in, of each ranking.
_JUDGED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How a collection is evaluated.

    Attributes:
        measures: As ``ir-measures`` calls them; the usual ones if empty.
        weights: Further weights of dense, lexical and multi-vector scores to compare.
        representations: Those to encode; all that the model has if ``None``.
        depth: How many documents a ranking holds.
        colbert: Of which documents multi-vectors are scored: ``"all"``, ``"candidates"`` (the best
            of dense and of lexical scores), or ``"auto"``: all, up to 4 million pairs.
        candidates: How many of each these are; M3-Embedding took 200.
        rerank: How many of the best documents a reranker gets.
        rerank_of: The setting it gets them of; the default hybrid, or the first, if ``None``.
        baseline: The setting or run that the others are compared with; the default hybrid, or the
            first, if ``None``.
        folds: Of the cross-validation of weights; 0: no advice.
        max_length: Tokens a document at most.
        query_max_length: Tokens a query at most.
        ignore_identical_ids: Have a query not find the document of its own id, as on ArguAna and
            Quora, whose queries are documents too.
        half: Keep multi-vectors in float16 on disk.
        encodings: Folder where encodings are kept, and found again; a temporary one if ``None``.
        show_progress: Show progress bars.
    """

    measures: tuple[str, ...] = ()
    weights: tuple[Weights, ...] = ()
    representations: tuple[str, ...] | None = None
    depth: int = 1000
    colbert: Scope = "auto"
    candidates: int = 200
    rerank: int = 100
    rerank_of: str | None = None
    baseline: str | None = None
    folds: int = 5
    max_length: int | None = None
    query_max_length: int | None = None
    ignore_identical_ids: bool = False
    half: bool = False
    encodings: str | Path | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        for name in ("depth", "candidates", "rerank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.folds == 1 or self.folds < 0:
            raise ValueError(f"folds is {self.folds}; it must be 2 or more, or 0 for no advice")


def evaluate(
    encoder: TextEncoder,
    data: RetrievalData,
    *,
    rerankers: Mapping[str, Reranker] | None = None,
    runs: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Measure every way of ranking that a model offers, on one encoding of the texts.

    Each text goes through the network once, for all representations. Encodings lie in files and
    are read one after the other, so a collection need not fit into memory.

    Args:
        encoder: The model.
        data: The collection.
        rerankers: Models that reorder the best documents, by name.
        runs: Rankings made elsewhere, by name, to measure beside; as ``read_run`` gives them.
        options: How; the defaults if ``None``.

    Returns:
        The measures, rankings and advice.

    Raises:
        EvaluationDataError: The collection has no documents.
        MissingRepresentationError: The model lacks what was asked for.
        MissingPackageError: ``ir-measures`` is absent.
        ValueError: There is no such measure, two documents have the same id, or a run is called as
            a setting is.
    """
    options = options or EvaluationOptions()
    names = options.measures or (MEASURES if data.answers is None else ANSWER_MEASURES)
    measures = tuple(str(one) for one in parse_measures(names))
    parts = _parts(encoder, options)
    settings = settings_for(parts, data.origin, options.weights)
    base = _name_among("reranked", [one.name for one in settings], options.rerank_of)
    reranked = {f"{base} > {name}": one for name, one in (rerankers or {}).items()}
    every = [*(one.name for one in settings), *reranked, *(runs or {})]
    if twins := {name for name in every if every.count(name) > 1}:
        raise ValueError(f"two rankings are called {min(twins)!r}: give the run another name")
    baseline = _name_among("the baseline", every, options.baseline)
    queries = tuple(data.queries)
    bars = _Bars(options.show_progress)
    with _folder(options.encodings) as folder:
        with bars("Encoding queries", len(queries)) as advanced:
            asked = encode_texts(
                encoder,
                data.queries.items(),
                folder,
                role="query",
                parts=parts,
                max_length=options.query_max_length,
                half=options.half,
                advanced=advanced,
            )
        with bars("Encoding documents", None) as advanced:
            documents = encode_texts(
                encoder,
                data.corpus,
                folder,
                parts=parts,
                max_length=options.max_length,
                half=options.half,
                advanced=advanced,
            )
        if not len(documents):
            raise EvaluationDataError(f"{data.name} has no documents")
        with bars("Scoring", None) as advanced:
            pool = build_pool(
                asked.whole(),
                documents,
                depth=options.depth,
                scope=options.colbert,
                candidates=options.candidates,
                advanced=advanced,
            )
    if options.ignore_identical_ids:
        numbers = {key: number for number, key in enumerate(documents.ids)}
        pool.leave_out([numbers.get(key) for key in queries])
    rankings = {one.name: pool.rank(one, options.depth) for one in settings}
    for name, reranker in reranked.items():
        rankings[name] = _reranked(reranker, data, rankings[base], options)
    judge = _Judge(data, queries, documents.ids, rankings.values(), runs or {})
    measured = {name: judge(one, measures) for name, one in rankings.items()}
    for name, run in (runs or {}).items():
        measured[name] = measure_run(judge.qrels, run, measures)
    advice: tuple[Advice, ...] = ()
    if options.folds and len(queries) > 1:
        with bars("Trying weights", None) as advanced:
            advice = _advice(pool, judge, parts, measures[0], options.folds, advanced)
    return Evaluation(
        data.name,
        encoder.name,
        documents.ids,
        queries,
        measured,
        rankings,
        _notes(pool, data, documents.ids, base if reranked else None, options),
        asked.encoded + documents.encoded,
        advice,
        baseline if len(measured) > 1 else None,
    )


def evaluate_runs(
    data: RetrievalData,
    runs: Mapping[str, Mapping[str, Mapping[str, float]]],
    measures: Sequence[str] = (),
    baseline: str | None = None,
) -> Evaluation:
    """Measure rankings that were made before, without any model.

    Args:
        data: The collection.
        runs: By name, as ``read_run`` gives them.
        measures: As of ``EvaluationOptions``.
        baseline: The run that the others are compared with; the first if ``None``.

    Returns:
        The measures; ``against`` says which differences are more than chance.

    Raises:
        MissingPackageError: ``ir-measures`` is absent.
        ValueError: There is no run, no such measure or no such baseline.
    """
    if not runs:
        raise ValueError("there is nothing to measure: give a model, or run files")
    names = tuple(measures) or (MEASURES if data.answers is None else ANSWER_MEASURES)
    base = _name_among("the baseline", list(runs), baseline)
    queries = tuple(data.queries)
    judge = _Judge(data, queries, (), (), runs)
    return Evaluation(
        data.name,
        "run files",
        (),
        queries,
        {name: measure_run(judge.qrels, run, names) for name, run in runs.items()},
        baseline=base if len(runs) > 1 else None,
    )


def _parts(encoder: TextEncoder, options: EvaluationOptions) -> tuple[str, ...]:
    there = encoder.representations
    wanted = there if options.representations is None else set(options.representations)
    if absent := sorted(set(wanted) - there):
        raise MissingRepresentationError(
            f"{' and '.join(absent)} asked for; {encoder.name} has {' and '.join(sorted(there))}"
        )
    return tuple(part for part in PARTS if part in wanted)


def _name_among(what: str, names: Sequence[str], name: str | None) -> str:
    """The name that was asked for, or the default's."""
    if name is None:
        return DEFAULT.name if DEFAULT.name in names else names[0]
    if name not in names:
        raise ValueError(f"{what} can be one of {', '.join(names)}; got {name!r}")
    return name


class _Judge:
    """Measures rankings by the judgements of some queries, in their order."""

    def __init__(
        self,
        data: RetrievalData,
        queries: Sequence[str],
        documents: Sequence[str],
        rankings: Any,
        runs: Mapping[str, Mapping[str, Mapping[str, float]]],
    ) -> None:
        self._queries, self._documents = queries, documents
        if data.answers is None:
            self.qrels: Qrels = {key: data.qrels[key] for key in queries}
            return
        judged: dict[str, set[str]] = {key: set() for key in queries}
        for ranking in rankings:
            for key, rows in zip(queries, ranking.rows, strict=True):
                judged[key].update(documents[row] for row in rows[:_JUDGED].tolist())
        for run in runs.values():
            for key in queries:
                ranked = sorted(run.get(key, {}).items(), key=lambda pair: -pair[1])
                judged[key].update(document for document, _ in ranked[:_JUDGED])
        self.qrels = judge_by_answers(
            {key: data.answers[key] for key in queries}, judged, data.corpus
        )

    def __call__(self, ranking: Ranking, measures: Sequence[str]) -> Measured:
        return measure_ranking(self.qrels, self._queries, self._documents, ranking, measures)


def _advice(
    pool: Pool,
    judge: _Judge,
    parts: Sequence[str],
    measure: str,
    folds: int,
    advanced: Callable[[int], object],
) -> tuple[Advice, ...]:
    """Fit weights of all representations, and of those that need no multi-vectors."""
    known: dict[tuple[Weights, str], NDArray[np.float64]] = {}

    def value_of(setting: Setting) -> NDArray[np.float64]:
        key = setting.weights, setting.fusion
        if key not in known:
            ranking = pool.rank(setting, _enough(measure))
            known[key] = judge(ranking, [measure]).values[measure]
            advanced(len(known))
        return known[key]

    without = tuple(part for part in parts if part != "colbert")
    groups = [group for group in dict.fromkeys([tuple(parts), without]) if len(group) > 1]
    return tuple(fit_weights(group, value_of, measure, folds=folds) for group in groups)


def _enough(measure: str) -> int:
    """How deep a ranking a measure looks: its cutoff, and some more as it may order ties anew."""
    _, _, cutoff = measure.partition("@")
    return int(cutoff) + 100 if cutoff.isdigit() else 1000


def _reranked(
    reranker: Reranker,
    data: RetrievalData,
    ranking: Ranking,
    options: EvaluationOptions,
) -> Ranking:
    best = [rows[: options.rerank] for rows in ranking.rows]
    wanted = set(np.concatenate([np.zeros(0, np.int64), *best]).tolist())
    texts = {row: text for row, (_, text) in enumerate(data.corpus) if row in wanted}
    pairs = [
        (query, texts[row])
        for query, rows in zip(data.queries.values(), best, strict=True)
        for row in rows.tolist()
    ]
    scores = np.array(
        reranker.compute_score(pairs, show_progress=options.show_progress), np.float32
    )
    rows_out: list[NDArray[np.int64]] = []
    scores_out: list[NDArray[np.float32]] = []
    start = 0
    for rows in best:
        own = scores[start : start + len(rows)]
        start += len(rows)
        order = np.argsort(-own, kind="stable")
        rows_out.append(rows[order])
        scores_out.append(own[order])
    return Ranking(rows_out, scores_out)


def _notes(
    pool: Pool,
    data: RetrievalData,
    documents: Sequence[str],
    reranked: str | None,
    options: EvaluationOptions,
) -> tuple[str, ...]:
    notes = [pool.described] if pool.described else []
    if reranked is not None:
        notes.append(f"rerankers order the {options.rerank} best of {reranked}")
    if data.answers is not None:
        notes.append(
            "a document is relevant if it contains an answer; Success@k is what M3-Embedding "
            "calls Recall@k on MKQA"
        )
    known = set(documents)
    relevant = {
        key
        for query in data.queries
        for key, grade in data.qrels.get(query, {}).items()
        if grade > 0
    }
    if absent := sorted(relevant - known):
        notes.append(
            f"warning: {len(absent)} of {len(relevant)} relevant documents are not in the "
            f"collection, {absent[0]!r} for example: nothing can find them"
        )
    return tuple(notes)


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="m3-evaluate-") as temporary:
        yield Path(temporary)


@dataclass(frozen=True, slots=True)
class _Bars:
    """Progress bars, or none."""

    shown: bool

    @contextmanager
    def __call__(self, doing: str, total: int | None) -> Iterator[Callable[[int], object]]:
        if not self.shown:
            yield lambda _: None
            return
        from tqdm.auto import tqdm

        with tqdm(desc=doing, total=total) as bar:
            yield lambda done: bar.update(done - bar.n)
