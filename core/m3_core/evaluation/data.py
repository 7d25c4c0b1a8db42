"""A retrieval test collection: queries, documents, and which document answers which query."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from m3_core.errors import EvaluationDataError
from m3_core.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

Qrels = dict[str, dict[str, int]]

_HEADS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, slots=True)
class RetrievalData:
    """Queries, documents and judgements.

    Attributes:
        name: What it is called in tables and run files.
        queries: Texts by id; those without a relevant document are left out when read.
        corpus: Ids and texts of the documents, which can be gone through any number of times and
            need not fit into memory.
        qrels: Grades of documents by query; above 0 is relevant. Empty where ``answers`` judge.
        answers: Short answers by query: a document is relevant if it contains one of them, as MKQA
            wants it. ``None`` where the documents are judged one by one.
        origin: What published it: ``"beir"``, ``"miracl"``, ``"mkqa"``, ``"mldr"`` or
            ``"examples"``; M3-Embedding weighs its scores differently on some of them.
    """

    name: str
    queries: Mapping[str, str]
    corpus: Iterable[tuple[str, str]]
    qrels: Qrels = field(default_factory=dict)
    answers: Mapping[str, list[str]] | None = None
    origin: str = "beir"


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of some files of JSON lines, read anew each time.

    Attributes:
        files: In order; those that end in ``.gz`` are unpacked while they are read.
        text_of: Makes the text of a row.
    """

    files: tuple[Path, ...]
    text_of: Callable[[Mapping[str, Any]], str]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for file in self.files:
            for where, row in read_json_lines(file):
                try:
                    text = self.text_of(row)
                except EvaluationDataError as error:
                    raise EvaluationDataError(f"{where}: {error}") from error
                yield id_of(row, where), text


def title_and_text(row: Mapping[str, Any]) -> str:
    """Put a document's title before its text, as BEIR's own evaluation does.

    Args:
        row: With ``text`` and perhaps ``title``.

    Returns:
        Both, with a space between them.

    Example:
        >>> title_and_text({"title": "Pandas", "text": "They eat bamboo."})
        'Pandas They eat bamboo.'
    """
    title, text = row.get("title") or "", row.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise EvaluationDataError(
            f"a document needs 'text', and 'title' where there is one, as strings; found "
            f"{ {name: type(value).__name__ for name, value in row.items()} }"
        )
    return f"{title} {text}".strip()


def id_of(row: Mapping[str, Any], where: str) -> str:
    """Find the id of a row.

    Args:
        row: With ``_id``, ``docid``, ``id``, ``query_id`` or ``example_id``.
        where: File and line, for errors.

    Returns:
        The id, as a string.

    Raises:
        EvaluationDataError: There is none.
    """
    for name in ("_id", "docid", "id", "query_id", "example_id"):
        if isinstance(row.get(name), (str, int)):
            # As judgements are read, whose columns may be padded.
            return str(row[name]).strip()
    raise EvaluationDataError(f"{where}: no '_id'; found {sorted(row)}")


def open_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Read the lines of a text file, packed or not.

    Args:
        file: UTF-8, with a mark of that or without; unpacked if it ends in ``.gz``.

    Yields:
        File with line number, and the line without its end; empty lines are passed over.

    Raises:
        EvaluationDataError: It cannot be read.
    """
    number = 0
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8-sig") as lines
        ):
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", line.rstrip("\r\n")
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise EvaluationDataError(f"{file}:{number + 1} cannot be read: {error}") from error


def read_json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read JSON lines.

    Args:
        file: As of ``open_lines``.

    Yields:
        File with line number, and the object.

    Raises:
        EvaluationDataError: A line is no object.
    """
    for where, line in open_lines(file):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise EvaluationDataError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise EvaluationDataError(f"{where}: {type(row).__name__} where an object must be")
        yield where, row


def read_qrels(file: Path) -> Qrels:
    r"""Read judgements.

    Args:
        file: Lines of BEIR (``query-id``, ``corpus-id``, ``score``, after a line that names them),
            of TREC (query, iteration, document, grade), or JSON lines with BEIR's names. Where the
            first line names BEIR's columns, they may come in any order.

    Returns:
        Grades of documents by query.

    Raises:
        EvaluationDataError: A line is none of these, or contradicts another.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "test.tsv")
        ...     _ = file.write_text("query-id\tcorpus-id\tscore\nq1\td7\t1\n")
        ...     read_qrels(file)
        {'q1': {'d7': 1}}
    """
    qrels: Qrels = {}
    if ".jsonl" in file.suffixes:
        for where, row in read_json_lines(file):
            _judge(qrels, where, row.get("query-id"), row.get("corpus-id"), row.get("score"))
        return qrels
    order = [0, 1, 2]
    for number, (where, line) in enumerate(open_lines(file)):
        # Ids may hold spaces where tabs stand between the columns.
        columns = line.split("\t") if "\t" in line else line.split()
        heads = [one.strip().lower() for one in columns]
        if number == 0 and sorted(heads) == sorted(_HEADS):
            order = [heads.index(one) for one in _HEADS]
            continue
        if number == 0 and heads[-1] in ("score", "relevance", "rel"):
            continue
        if len(columns) == 3:
            _judge(qrels, where, *(columns[one] for one in order))
        elif len(columns) == 4:
            _judge(qrels, where, columns[0], columns[2], columns[3])
        else:
            raise EvaluationDataError(
                f"{where}: {len(columns)} columns; judgements have 3 (query-id, corpus-id, score) "
                "or, as TREC's, 4"
            )
    return qrels


def _judge(qrels: Qrels, where: str, query: Any, document: Any, grade: Any) -> None:
    try:
        value = float(grade)
        if not value.is_integer() or query is None or document is None:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise EvaluationDataError(
            f"{where}: query {query!r}, document {document!r}, grade {grade!r}; a grade is a "
            "whole number"
        ) from error
    grades, name = qrels.setdefault(str(query).strip(), {}), str(document).strip()
    if grades.setdefault(name, int(value)) != int(value):
        raise EvaluationDataError(
            f"{where}: query {query!r}, document {document!r} has the grade {int(value)}, and "
            f"{grades[name]} in a line before"
        )


def judged_only(queries: Mapping[str, str], qrels: Qrels, where: Path) -> dict[str, str]:
    """Leave out queries that nothing answers, as all published figures do.

    Args:
        queries: Texts by id.
        qrels: Judgements.
        where: What was read, for errors.

    Returns:
        The others, in their order.

    Raises:
        EvaluationDataError: None is left.
    """
    kept = {
        key: text
        for key, text in queries.items()
        if any(grade > 0 for grade in qrels.get(key, {}).values())
    }
    if not kept:
        raise EvaluationDataError(
            f"{where}: none of {len(queries)} queries has a relevant document among the "
            f"judgements of {len(qrels)} queries: do their ids belong together? "
            f"{sorted(queries)[:3]} and {sorted(qrels)[:3]}"
        )
    return kept
