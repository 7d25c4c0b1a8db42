"""Measures of rankings, as ``ir-measures`` computes them (trec_eval's), and TREC's run files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import EvaluationDataError
from m3_core.evaluation.data import open_lines
from m3_core.extras import needs_extra
from m3_core.files import replacing_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.evaluation.data import Qrels
    from m3_core.evaluation.pool import Ranking

Run = dict[str, dict[str, float]]

MEASURES = ("nDCG@10", "R@5", "R@20", "R@100", "RR@10", "Success@1")
"""What is measured unless told otherwise; ``R`` is recall, ``RR`` the reciprocal rank."""
# Recall as RocketQA and M3-Embedding count it on MKQA: whether any of the best has an answer.
ANSWER_MEASURES = ("Success@20", "Success@100", "Success@5", "Success@1", "RR@10")

# So many queries are measured at a time; runs of all of them, as dictionaries, are large.
_AT_ONCE = 500


def parse_measures(names: Sequence[str]) -> list[Any]:
    """Find measures of ``ir-measures`` by their names.

    Args:
        names: ``"nDCG@10"``, ``"AP(rel=2)"`` and so on.

    Returns:
        The measures.

    Raises:
        MissingPackageError: ``ir-measures`` is absent.
        ValueError: There is no such measure.

    Example:
        >>> parse_measures(["nDCG@10", "R@100"])
        [nDCG@10, R@100]
    """
    with needs_extra("evaluation", "evaluate", "ir_measures"):
        import ir_measures
    found = []
    for name in names:
        try:
            found.append(ir_measures.parse_measure(name))
        except (NameError, ValueError, SyntaxError, TypeError, AttributeError) as error:
            raise ValueError(
                f"measure {name!r} is not one of ir-measures, such as {', '.join(MEASURES)}: "
                f"{error}"
            ) from error
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What measures say of a run.

    Attributes:
        queries: Ids of all queries that have judgements.
        values: By measure, one value a query in their order; a query without documents has the
            measure's lowest. Shape: (queries,). Dtype: float64.
    """

    queries: tuple[str, ...]
    values: dict[str, NDArray[np.float64]]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each measure over the queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def measure_run(
    qrels: Qrels, run: Mapping[str, Mapping[str, float]], measures: Sequence[str] = MEASURES
) -> Measured:
    """Measure a run.

    Args:
        qrels: Grades of documents by query.
        run: Scores of documents by query.
        measures: As ``ir-measures`` calls them.

    Returns:
        Values of all queries in ``qrels``.

    Raises:
        MissingPackageError: ``ir-measures`` is absent.
        ValueError: There is no such measure.

    Example:
        >>> found = measure_run({"q": {"d1": 1}}, {"q": {"d2": 0.9, "d1": 0.5}}, ["RR@10"])
        >>> found.means
        {'RR@10': 0.5}
    """
    parsed = parse_measures(measures)
    import ir_measures

    names = tuple(qrels)
    values = {str(one): np.zeros(len(names)) for one in parsed}
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        numbers = {key: start + number for number, key in enumerate(part)}
        # A query that found nothing is measured too, as zero.
        scored = {key: dict(run[key]) for key in part if run.get(key)}
        judged = {key: dict(qrels[key]) for key in part}
        for one in ir_measures.iter_calc(parsed, judged, scored) if scored else ():
            if one.query_id in numbers:
                values[str(one.measure)][numbers[one.query_id]] = one.value
    return Measured(names, values)


def measure_ranking(
    qrels: Qrels,
    queries: Sequence[str],
    documents: Sequence[str],
    ranking: Ranking,
    measures: Sequence[str] = MEASURES,
) -> Measured:
    """Measure a ranking; as a run of dictionaries it is never in memory as a whole.

    Args:
        qrels: Grades of documents by query.
        queries: Ids of the ranking's queries.
        documents: Ids of the documents that it numbers.
        ranking: Numbers of documents.
        measures: As ``ir-measures`` calls them.

    Returns:
        Values of these queries.

    Raises:
        MissingPackageError: ``ir-measures`` is absent.
        ValueError: There is no such measure.
    """
    parts = []
    for start in range(0, len(queries), _AT_ONCE):
        few = slice(start, start + _AT_ONCE)
        own = type(ranking)(ranking.rows[few], ranking.scores[few])
        judged = {key: qrels[key] for key in queries[few]}
        parts.append(measure_run(judged, run_of(queries[few], documents, own), measures))
    return Measured(
        tuple(queries),
        {name: np.concatenate([one.values[name] for one in parts]) for name in parts[0].values},
    )


def run_of(queries: Sequence[str], documents: Sequence[str], ranking: Ranking) -> Run:
    """Name the queries and documents of a ranking.

    Args:
        queries: Their ids.
        documents: Their ids.
        ranking: Numbers of documents.

    Returns:
        Scores of documents by query, best first.
    """
    return {
        key: {
            documents[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        }
        for key, rows, scores in zip(queries, ranking.rows, ranking.scores, strict=True)
    }


def write_run(path: str | Path, run: Mapping[str, Mapping[str, float]], tag: str = "m3") -> None:
    """Write a run as TREC does: query, Q0, document, rank, score, name of the run.

    Args:
        path: The file, which takes the place of an older one when it is whole.
        run: Scores of documents by query.
        tag: The run's name; white space in it becomes ``_``.

    Raises:
        ValueError: An id holds white space, which the format cannot express.
        OSError: It cannot be written.
    """
    tag = "_".join(tag.split())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda pair: -pair[1])
            for rank, (document, score) in enumerate(ranked, 1):
                for key in (query, document):
                    if not key or len(key.split()) > 1 or key != key.strip():
                        raise ValueError(
                            f"id {key!r} is empty or holds white space, which run files cannot "
                            "express: use other ids"
                        )
                # As many digits as give the number back as it was.
                file.write(f"{query} Q0 {document} {rank} {float(score)!r} {tag}\n".encode())


def read_run(path: str | Path) -> Run:
    """Read a run file of TREC.

    Args:
        path: The file; unpacked if it ends in ``.gz``.

    Returns:
        Scores of documents by query, in the order of the file.

    Raises:
        EvaluationDataError: A line is none of such a file, its score is no number, or a document
            comes twice.
    """
    run: Run = {}
    for where, line in open_lines(Path(path)):
        columns = line.split()
        try:
            query, _, document, _, score, *_ = columns
            value = float(score)
            if math.isnan(value):
                raise ValueError
        except ValueError as error:
            raise EvaluationDataError(
                f"{where}: a line of a run is 'query Q0 document rank score name'; got {line!r}"
            ) from error
        own = run.setdefault(query, {})
        if document in own:
            raise EvaluationDataError(f"{where}: document {document!r} comes twice for {query!r}")
        own[document] = value
    if not run:
        raise EvaluationDataError(f"{path} holds no run: it is empty")
    return run


def judge_by_answers(
    answers: Mapping[str, Iterable[str]],
    candidates: Mapping[str, Iterable[str]],
    texts: Iterable[tuple[str, str]],
) -> Qrels:
    """Judge documents by whether they contain an answer.

    Args:
        answers: Answers by query.
        candidates: Ids of documents by query: those that are judged.
        texts: Ids and texts of the collection.

    Returns:
        1 or 0 for each candidate of each query.
    """
    from m3_core.evaluation.answers import contains_words, words_of

    asked: dict[str, list[str]] = {}
    for query, documents in candidates.items():
        for document in documents:
            asked.setdefault(document, []).append(query)
    words = {query: [words_of(one) for one in listed] for query, listed in answers.items()}
    qrels: Qrels = {query: {} for query in answers}
    for document, text in texts:
        if document in asked:
            whole = words_of(text)
            for query in asked[document]:
                qrels[query][document] = int(contains_words(whole, words[query]))
    return qrels
