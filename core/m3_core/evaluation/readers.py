"""Test collections as they are published: BEIR, MIRACL, MKQA, MLDR, and examples for training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.errors import EvaluationDataError
from m3_core.evaluation.answers import plain_text
from m3_core.evaluation.data import (
    Documents,
    Qrels,
    RetrievalData,
    id_of,
    judged_only,
    open_lines,
    read_json_lines,
    read_qrels,
    title_and_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FORMATS = ("beir", "miracl", "mkqa", "mldr", "examples")


def load_data(
    folder: str | Path,
    format: str | None = None,
    *,
    split: str | None = None,
    language: str | None = None,
) -> RetrievalData:
    """Read a test collection from files that are there already.

    Args:
        folder: A folder, or for ``"examples"`` a file:

            - ``"beir"``: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``.
            - ``"miracl"``: ``topics.miracl-v1.0-<language>-<split>.tsv`` and the ``qrels`` of the
              same name, and ``docs-*.jsonl.gz`` of the corpus, anywhere below the folder.
            - ``"mkqa"``: ``mkqa.jsonl.gz`` of its makers, or ``<language>.jsonl`` of the test data
              of M3-Embedding, and ``corpus.jsonl`` of BEIR's NQ, anywhere below the folder.
            - ``"mldr"``: ``<split>.jsonl.gz`` and ``corpus.jsonl.gz`` in
              ``mldr-v1.0-<language>`` or the folder itself.
            - ``"examples"``: JSON lines as for training, ``query``, ``pos`` and ``neg``.

            All files may be packed with gzip, or not.
        format: One of these; found out from the files if ``None``.
        split: Which part; ``"test"``, ``"dev"`` for MIRACL, whose test has no judgements, if
            ``None``.
        language: Which one, where there are several.

    Returns:
        The collection. Its documents are read anew each time they are gone through.

    Raises:
        EvaluationDataError: Files are absent, or hold something else.
        ValueError: There is no such format.
    """
    folder = Path(folder)
    if not folder.exists():
        raise EvaluationDataError(f"{folder} does not exist")
    name = format or _guessed(folder)
    readers: dict[str, Callable[..., RetrievalData]] = {
        "beir": read_beir,
        "miracl": read_miracl,
        "mkqa": read_mkqa,
        "mldr": read_mldr,
        "examples": _read_examples,
    }
    if name not in readers:
        raise ValueError(f"format is {name!r}; it must be one of {', '.join(FORMATS)}")
    return readers[name](folder, split, language)


def _guessed(folder: Path) -> str:
    if folder.is_file():
        return "examples"
    if (folder / "qrels").is_dir() and _first(folder, "queries.jsonl"):
        return "beir"
    if any(folder.rglob("topics.miracl-*")):
        return "miracl"
    if any(folder.rglob("mldr-v1.0-*")) or folder.name.startswith("mldr-v1.0-"):
        return "mldr"
    if any(folder.rglob("mkqa.jsonl*")):
        return "mkqa"
    raise EvaluationDataError(
        f"{folder} is no folder of BEIR (corpus.jsonl, queries.jsonl, qrels/), and holds no files "
        f"of MIRACL, MKQA or MLDR; found {sorted(one.name for one in folder.iterdir())[:8]}. "
        "Where it is one of them under other names, name the format"
    )


def read_beir(folder: Path, split: str | None, language: str | None = None) -> RetrievalData:
    """Read a folder of BEIR.

    Args:
        folder: With ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/``.
        split: Name of the judgements' file.
        language: Must be ``None``.

    Returns:
        The collection.

    Raises:
        EvaluationDataError: Something is absent.
    """
    _refuse_language(folder, "beir", language)
    known = sorted(
        one for one in (folder / "qrels").glob("*") if one.name.endswith((".tsv", ".jsonl", ".gz"))
    )
    wanted = [one for one in known if one.name.split(".")[0] == (split or "test")]
    if not wanted and split is None and len(known) == 1:
        wanted = known
    if not wanted:
        raise EvaluationDataError(
            f"{folder}/qrels has no judgements {split or 'test'!r}; found "
            f"{[one.name for one in known]}: choose a split"
        )
    qrels = read_qrels(wanted[0])
    queries = _texts(_needed(folder, "queries.jsonl"))
    return RetrievalData(
        folder.resolve().name,
        judged_only(queries, qrels, folder),
        Documents((_needed(folder, "corpus.jsonl"),), title_and_text),
        qrels,
    )


def read_miracl(folder: Path, split: str | None, language: str | None) -> RetrievalData:
    """Read MIRACL: topics and judgements, and the passages they are about.

    Args:
        folder: Above ``miracl-v1.0-<language>`` and ``miracl-corpus-v1.0-<language>``.
        split: ``"dev"`` if ``None``.
        language: Its code; may be ``None`` where there is one.

    Returns:
        The collection.

    Raises:
        EvaluationDataError: Something is absent.
    """
    split = split or "dev"
    topics = _one_language(folder, f"topics.miracl-v1.0-*-{split}.tsv", language, "-{}-")
    code = topics.name.split("-")[2]
    qrels = read_qrels(_below(folder, f"qrels.miracl-v1.0-{code}-{split}.tsv"))
    queries = {}
    for where, line in open_lines(topics):
        key, tab, text = line.partition("\t")
        if not tab:
            raise EvaluationDataError(f"{where}: a topic is an id, a tab and a query; got {line!r}")
        queries[key.strip()] = text.strip()
    files = [
        *folder.rglob(f"*corpus-v1.0-{code}/docs-*.jsonl*"),
        *(folder.glob("docs-*.jsonl*") if folder.is_dir() else ()),
    ]
    if not files:
        raise EvaluationDataError(
            f"{folder} has no miracl-corpus-v1.0-{code}/docs-0.jsonl.gz and so on: the passages "
            "are a data set of their own, miracl/miracl-corpus"
        )
    files.sort(key=lambda one: int("0" + "".join(re.findall(r"docs-(\d+)", one.name))))
    return RetrievalData(
        f"miracl-{code}-{split}",
        judged_only(queries, qrels, topics),
        Documents(tuple(files), title_and_text),
        qrels,
        origin="miracl",
    )


def read_mldr(folder: Path, split: str | None, language: str | None) -> RetrievalData:
    """Read MLDR: long documents, and questions with those they were made of.

    Args:
        folder: Above ``mldr-v1.0-<language>``, or such a folder.
        split: ``"test"`` if ``None``.
        language: Its code; may be ``None`` where there is one.

    Returns:
        The collection.

    Raises:
        EvaluationDataError: Something is absent.
    """
    split = split or "test"
    own = folder
    if not _first(folder, "corpus.jsonl"):
        own = _one_language(folder, "mldr-v1.0-*", language, "-{}")
    queries, qrels = dict[str, str](), Qrels()
    for where, row in read_json_lines(_needed(own, f"{split}.jsonl")):
        key = id_of({"query_id": row.get("query_id")}, where)
        _add_text(queries, key, _string(row, "query", where), where)
        qrels[key] = {
            id_of(one, where): grade
            for name, grade in (("negative_passages", 0), ("positive_passages", 1))
            for one in _objects(row.get(name), name, where)
        }
    return RetrievalData(
        f"{own.resolve().name}-{split}",
        judged_only(queries, qrels, own),
        Documents((_needed(own, "corpus.jsonl"),), title_and_text),
        qrels,
        origin="mldr",
    )


def _plain_document(row: Mapping[str, Any]) -> str:
    return plain_text(title_and_text(row))


def read_mkqa(folder: Path, split: str | None, language: str | None) -> RetrievalData:
    """Read MKQA: questions in a language, answers in English, over the passages of BEIR's NQ.

    Args:
        folder: Above the files.
        split: Must be ``None`` or ``"test"``.
        language: Its code, ``zh_cn`` for example.

    Returns:
        The collection, judged by answers; 6,619 questions of the 10,000, as unanswerable ones,
        yes-no questions and long answers are left out.

    Raises:
        EvaluationDataError: Something is absent.
    """
    if split not in (None, "test"):
        raise EvaluationDataError(f"MKQA has one split, 'test'; asked for was {split!r}")
    whole = [one for one in sorted(folder.rglob("mkqa.jsonl*")) if one.is_file()]
    if whole and language is None:
        raise EvaluationDataError(f"{whole[0]} has 26 languages: name one, 'de' for example")
    if whole:
        rows = _of_makers(whole[0], str(language))
    else:
        rows = _of_test_data(_one_language(folder, "*.jsonl*", language, "{}.jsonl"))
    texts, answers = dict[str, str](), dict[str, list[str]]()
    for key, text, listed in rows:
        _add_text(texts, key, text, str(folder))
        answers[key] = listed
    if not texts:
        raise EvaluationDataError(f"{folder} has no questions with short answers in {language!r}")
    return RetrievalData(
        f"mkqa-{language or 'one'}",
        texts,
        Documents((_below(folder, "corpus.jsonl"),), _plain_document),
        answers=answers,
        origin="mkqa",
    )


_NO_SHORT_ANSWER = {"unanswerable", "binary", "long_answer"}


def _of_makers(file: Path, language: str) -> Iterable[tuple[str, str, list[str]]]:
    for where, row in read_json_lines(file):
        asked, answers = row.get("queries"), row.get("answers")
        if not isinstance(asked, dict) or not isinstance(answers, dict):
            raise EvaluationDataError(f"{where}: no 'queries' and 'answers' by language")
        if language not in asked:
            raise EvaluationDataError(f"{where}: no {language!r} among {sorted(asked)}")
        # The passages are English, so the English answers count for every language.
        english = _objects(answers.get("en"), "answers", where)
        if any(one.get("type") in _NO_SHORT_ANSWER for one in english):
            continue
        texts = [[one.get("text"), *_listed(one, "aliases", where)] for one in english]
        listed = [str(text) for group in texts for text in group if text]
        if listed:
            yield id_of(row, where), _string(asked, language, where), listed


def _of_test_data(file: Path) -> Iterable[tuple[str, str, list[str]]]:
    for where, row in read_json_lines(file):
        answers = row.get("answers")
        if not isinstance(answers, list):
            raise EvaluationDataError(f"{where}: no list of 'answers'; found {sorted(row)}")
        yield id_of(row, where), _string(row, "question", where), [str(one) for one in answers]


def _read_examples(file: Path, split: str | None, language: str | None) -> RetrievalData:
    """Examples for training: all their positives and negatives are the documents."""
    from m3_core.training import read_examples

    if split is not None:
        raise EvaluationDataError(f"{file}: examples for training have no split {split!r}")
    _refuse_language(file, "examples", language)
    rows = read_examples([file])
    texts = [text for row in rows for text in (*row["pos"], *row["neg"])]
    numbers = {text: str(number) for number, text in enumerate(dict.fromkeys(texts))}
    qrels: Qrels = {}
    for number, row in enumerate(rows):
        qrels[str(number)] = {numbers[text]: 1 for text in row["pos"]}
    return RetrievalData(
        file.resolve().stem,
        {str(number): (row["prompt"] or "") + row["query"] for number, row in enumerate(rows)},
        tuple((number, text) for text, number in numbers.items()),
        qrels,
        origin="examples",
    )


def _texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, row in read_json_lines(file):
        _add_text(texts, id_of(row, where), _string(row, "text", where), where)
    return texts


def _add_text(texts: dict[str, str], key: str, text: str, where: str) -> None:
    if texts.get(key, text) != text:
        raise EvaluationDataError(f"{where}: another query has the id {key!r} too")
    texts[key] = text


def _objects(given: Any, name: str, where: str) -> list[Mapping[str, Any]]:
    found = [] if given is None else given
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise EvaluationDataError(f"{where}: {name!r} is no list of objects")
    return found


def _listed(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    found = row.get(name) or []
    if not isinstance(found, list):
        raise EvaluationDataError(f"{where}: {name!r} is no list")
    return found


def _string(row: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(row.get(name), str):
        raise EvaluationDataError(f"{where}: no text {name!r}; found {sorted(row)}")
    return str(row[name])


def _first(folder: Path, name: str) -> Path | None:
    return next((one for one in (folder / name, folder / f"{name}.gz") if one.is_file()), None)


def _needed(folder: Path, name: str) -> Path:
    found = _first(folder, name)
    if found is None:
        raise EvaluationDataError(
            f"{folder} has neither {name} nor {name}.gz; found "
            f"{sorted(one.name for one in folder.iterdir())[:8]}"
        )
    return found


def _below(folder: Path, name: str) -> Path:
    found = [one for end in ("", ".gz") for one in sorted(folder.rglob(name + end))]
    if not found:
        raise EvaluationDataError(f"{folder} and its folders have neither {name} nor {name}.gz")
    return found[0]


def _one_language(folder: Path, pattern: str, language: str | None, form: str) -> Path:
    """Find the one file or folder of a language."""
    found = [one for end in ("", ".gz") for one in sorted(folder.rglob(pattern + end))]
    found = [one for one in found if not one.name.startswith("corpus.")]
    if language is not None:
        mark = form.format(language)
        found = [one for one in found if mark in one.name and _is_end(one.name, mark)]
    if len(found) == 1:
        return found[0]
    names = sorted(one.name for one in found)[:30]
    if found:
        raise EvaluationDataError(f"{folder} has several languages: name one of {names}")
    asked = "" if language is None else f" of the language {language!r}"
    raise EvaluationDataError(f"{folder} and its folders have no {pattern}{asked}")


def _is_end(name: str, mark: str) -> bool:
    """Whether a mark that should stand at a name's start or end does so."""
    if mark.startswith("-"):
        return mark.endswith("-") or name.endswith(mark)
    return name.startswith(mark)


def _refuse_language(where: Path, kind: str, language: str | None) -> None:
    if language is not None:
        raise EvaluationDataError(
            f"{where}: data of the format {kind} are of one language; asked for was {language!r}"
        )
