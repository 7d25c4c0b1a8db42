"""Training data: FlagEmbedding's JSON lines, checked line by line.

A line holds ``query`` (text), ``pos`` and ``neg`` (lists of texts), and may hold ``pos_scores`` and
``neg_scores`` (an outside teacher's, one a text) and ``prompt`` (put before the query).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.errors import TrainingDataError
from m3_core.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from datasets import Dataset

KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt")
# The number of the file that an example is from.
SOURCE = "source"


def parse_example(line: str, where: str) -> dict[str, Any]:
    """Read one line.

    Args:
        line: JSON.
        where: File and line number, for errors.

    Returns:
        The six keys of an example; those that are absent are ``None``, ``neg`` an empty list.

    Raises:
        TrainingDataError: It is not an example.

    Example:
        >>> parse_example('{"query": "q", "pos": ["d"]}', "data.jsonl:1")["neg"]
        []
        >>> parse_example('{"query": "q", "pos": "d"}', "data.jsonl:7")
        Traceback (most recent call last):
            ...
        m3_core.errors.TrainingDataError: data.jsonl:7: 'pos' is str; it must be a list of \
texts
    """
    try:
        record = parse_json(line)
    except ValueError as error:
        raise TrainingDataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise TrainingDataError(
            f"{where}: {type(record).__name__} where an object with 'query' and 'pos' must be"
        )
    missing = [key for key in ("query", "pos") if record.get(key) is None]
    if missing:
        raise TrainingDataError(
            f"{where}: no {' and no '.join(map(repr, missing))}; found {sorted(record)}"
        )
    check_text(record["query"], "'query'", where)
    if record.get("prompt") is not None:
        check_text(record["prompt"], "'prompt'", where, may_be_empty=True)
    record["neg"] = [] if record.get("neg") is None else record["neg"]
    for key in ("pos", "neg"):
        _check_texts(record[key], key, where)
        _check_scores(record, key, where)
    if not record["pos"]:
        raise TrainingDataError(f"{where}: 'pos' is empty; an example needs a positive document")
    return {key: record.get(key) for key in KEYS}


def _check_texts(texts: object, key: str, where: str) -> None:
    if not isinstance(texts, list):
        raise TrainingDataError(
            f"{where}: {key!r} is {type(texts).__name__}; it must be a list of texts"
        )
    for number, text in enumerate(texts):
        check_text(text, f"{key}[{number}]", where)


def check_text(text: object, what: str, where: str, *, may_be_empty: bool = False) -> None:
    """Check a text of a training file.

    Args:
        text: What the file has.
        what: What it is called there.
        where: File and line number.
        may_be_empty: Whether it may hold nothing but white space.

    Raises:
        TrainingDataError: It is no text, empty, or not to be written in UTF-8.

    Example:
        >>> check_text("a panda", "'query'", "data.jsonl:1")
    """
    if not isinstance(text, str):
        raise TrainingDataError(f"{where}: {what} is {type(text).__name__}; it must be a text")
    if not may_be_empty and not text.strip():
        raise TrainingDataError(f"{where}: {what} is empty: leave the example out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TrainingDataError(
            f"{where}: {what} holds the lone surrogate {text[error.start]!r}, which no text can"
        ) from error


def _check_scores(record: Mapping[str, Any], key: str, where: str) -> None:
    name = f"{key}_scores"
    scores = record.get(name)
    if scores is None:
        return
    if not isinstance(scores, list) or len(scores) != len(record[key]):
        found = len(scores) if isinstance(scores, list) else type(scores).__name__
        raise TrainingDataError(
            f"{where}: {name!r} is {found}; it must be a list of {len(record[key])} numbers, one "
            f"for each text of {key!r}"
        )
    for number, score in enumerate(scores):
        real = isinstance(score, (int, float)) and not isinstance(score, bool)
        if not real or not math.isfinite(score):
            raise TrainingDataError(f"{where}: {name}[{number}] is {score!r}; it must be a number")


def find_files(sources: Iterable[str | Path]) -> list[Path]:
    """List the files of a training set.

    Args:
        sources: Files, or folders of .json and .jsonl files.

    Returns:
        Files, those of a folder by name.

    Raises:
        TrainingDataError: A source does not exist or a folder holds no such file.
    """
    files: list[Path] = []
    for source in map(Path, sources):
        if source.is_file():
            files.append(source)
            continue
        found = sorted(p for p in source.glob("*") if p.suffix in (".json", ".jsonl"))
        if not found:
            what = "holds no .json or .jsonl file" if source.is_dir() else "does not exist"
            raise TrainingDataError(f"training data {source} {what}")
        files += found
    return files


def read_lines(files: Iterable[Path | str]) -> Iterator[dict[str, Any]]:
    """Read and check every line; empty lines are passed over.

    Args:
        files: JSON lines in UTF-8.

    Yields:
        Examples, as of ``parse_example``.

    Raises:
        TrainingDataError: A line is no example, with its number; or a file cannot be read.
    """
    for file in files:
        number = 0
        try:
            with Path(file).open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield parse_example(line, f"{file}:{number}")
        except UnicodeDecodeError as error:
            raise TrainingDataError(f"{file}:{number + 1}: not UTF-8: {error}") from error
        except OSError as error:
            raise TrainingDataError(f"{file} cannot be read: {error}") from error


def read_examples(sources: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read all lines of files of examples.

    Args:
        sources: Files, or folders of .json and .jsonl files.

    Returns:
        Examples, as of ``parse_example``; at least one.

    Raises:
        TrainingDataError: A source does not exist, a line is no example, or there are none.
    """
    files = find_files(sources)
    rows = list(read_lines(files))
    _refuse_none(rows, files)
    return rows


def _refuse_none(rows: Sequence[Any], files: Iterable[Path]) -> None:
    if not rows:
        raise TrainingDataError(f"no examples in {', '.join(map(str, files))}: all are empty")


def load_examples(*sources: str | Path) -> Dataset | list[dict[str, Any]]:
    """Read a training set.

    Args:
        *sources: Files, or folders of .json and .jsonl files.

    Returns:
        A data set of ``datasets`` with the columns ``KEYS`` and ``SOURCE``; a list of the same
        without that package.

    Raises:
        TrainingDataError: A source does not exist, a line is no example, or there are none.
    """
    files = find_files(sources)
    rows = [
        {**row, SOURCE: number} for number, file in enumerate(files) for row in read_lines([file])
    ]
    _refuse_none(rows, files)
    try:
        import datasets
    except ImportError:
        return rows
    texts, numbers = (
        datasets.List(datasets.Value("string")),
        datasets.List(datasets.Value("float64")),
    )
    text = datasets.Value("string")
    kinds = (text, texts, texts, numbers, numbers, text)
    features = datasets.Features(dict(zip(KEYS, kinds, strict=True)))
    features[SOURCE] = datasets.Value("int64")
    return datasets.Dataset.from_list(rows, features=features)
