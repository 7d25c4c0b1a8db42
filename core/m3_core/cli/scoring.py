"""``m3-retrieval score``, ``rerank`` and ``explain``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, Option

from m3_core.cli.commands import new_app
from m3_core.cli.console import (
    DEFAULT_MODEL,
    Device,
    Dtype,
    Json,
    note,
    output,
    read_lines,
    write,
    write_line,
    write_table,
)
from m3_core.cli.models import is_reranker, load_encoder, load_reranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m3_core.encoder import Encoder

app = new_app()

Query = Annotated[str, Argument(help="The query.", metavar="QUERY")]
Documents = Annotated[
    list[str],
    Argument(
        help="Documents; - reads them from standard input, one a line, plain or as JSON.",
        metavar="DOCUMENT",
    ),
]
Model = Annotated[
    str, Option(help="An embedded model, a folder or a hub repository: an encoder or a reranker.")
]
Weights = Annotated[
    tuple[float, float, float],
    Option(
        help="Of an encoder's dense, sparse and colbert scores.", metavar="DENSE SPARSE COLBERT"
    ),
]
Normalize = Annotated[
    bool, Option("--normalize", help="Put a reranker's scores through the sigmoid, into 0 to 1.")
]
PAPER = (1.0, 0.3, 1.0)


SCORE = """\
Score documents for a query, in the given order.

Examples:
  m3-retrieval score "What do pandas eat?" "Pandas eat bamboo." "大熊猫吃竹子。"
  m3-retrieval score "What do pandas eat?" - --json < passages.txt
  m3-retrieval score "pandas" "Pandas eat." --model BAAI/bge-reranker-v2-m3 --normalize

An encoder gives its dense, sparse and colbert scores and their weighted mean; a reranker gives
one score. --json writes an object a line: query, document, score, and scores by representation.
"""


@app.command(help=SCORE)
def score(
    query: Query,
    documents: Documents,
    *,
    model: Model = DEFAULT_MODEL,
    weights: Weights = PAPER,
    normalize: Normalize = False,
    device: Device = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Score documents for a query, in the given order."""
    given = _read(documents)
    options = _Options(model, weights, normalize, device, dtype)
    for_each = _scores(query, given, options)
    if as_json:
        for one, found in zip(given, for_each, strict=True):
            write_line({"query": query, "document": one.text, **found._asdict()})
        return
    parts = list(for_each[0].scores)
    rows = [
        [*(f"{value:.4f}" for value in (found.score, *found.scores.values())), one.text]
        for one, found in zip(given, for_each, strict=True)
    ]
    write_table(rows, ["score", *parts, "document"], ["score", *parts])


RERANK = """\
Order documents for a query, the best first.

Examples:
  m3-retrieval rerank "What do pandas eat?" "Rivers flow." "Pandas eat bamboo."
  m3-retrieval rerank "What do pandas eat?" - -n 3 < passages.txt
  m3-retrieval search docs.m3 "how?" -k 50 --json |
    m3-retrieval rerank "how?" - -n 5 --json --model BAAI/bge-reranker-v2-m3

Lines of standard input that are JSON objects have their text in "text"; --json writes them
again with new rank, score and scores, and index: the place in the input, from 0.
"""


@app.command(help=RERANK)
def rerank(
    query: Query,
    documents: Documents,
    *,
    top_n: Annotated[
        int | None,
        Option("--top-n", "-n", help="How many to keep; by default all.", metavar="N", min=1),
    ] = None,
    model: Model = DEFAULT_MODEL,
    weights: Weights = PAPER,
    normalize: Normalize = False,
    device: Device = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Order documents for a query, the best first."""
    given = _read(documents)
    found = _scores(query, given, _Options(model, weights, normalize, device, dtype))
    order = sorted(range(len(found)), key=lambda place: -found[place].score)[:top_n]
    if as_json:
        for rank, place in enumerate(order, 1):
            own = given[place].fields or {"query": query, "text": given[place].text}
            write_line({**own, "rank": rank, "index": place, **found[place]._asdict()})
        return
    rows = [
        [str(rank), f"{found[place].score:.4f}", given[place].text]
        for rank, place in enumerate(order, 1)
    ]
    write_table(rows, ["rank", "score", "document"], ["rank", "score"])


EXPLAIN = """\
Say why a document matches a query.

Words in both with their weights, each word's most similar word, and what each of these adds to
the score.

Examples:
  m3-retrieval explain "What do pandas eat?" "Pandas eat bamboo."
  m3-retrieval explain "What do pandas eat?" - --html why.html < panda.txt
  m3-retrieval explain "pandas" "Pandas eat." --json | jq .contributions
"""


@app.command(help=EXPLAIN)
def explain(
    query: Query,
    document: Annotated[
        str, Argument(help="The document; - reads it from standard input.", metavar="DOCUMENT")
    ],
    *,
    model: Annotated[
        str, Option(help="An embedded model, a folder or a hub repository: an encoder.")
    ] = DEFAULT_MODEL,
    weights: Weights = PAPER,
    html: Annotated[
        str | None,
        Option(help="Write a page with highlighted words and a heat map.", metavar="FILE"),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Say why a document matches a query."""
    from m3_core.explanations import explain as explained

    text = "\n".join(read_lines(keep_empty=True)) if document == "-" else document
    encoder = load_encoder(model, device=device, dtype=dtype)
    with encoder:
        explanation = explained(encoder, query, text, weights=weights)
    if html is not None:
        from m3_core.files import replacing_file

        with replacing_file(html) as file:
            file.write(explanation.to_html().encode())
        note(f"wrote {html}")
    if as_json:
        write(explanation.to_dict())
    elif html is None:
        console = output()
        if console.is_terminal:
            console.print(explanation)
        else:
            sys.stdout.write(f"{explanation}\n")


class _Options(NamedTuple):
    model: str
    weights: tuple[float, float, float]
    normalize: bool
    device: str | None
    dtype: str


class _Found(NamedTuple):
    """What a document's score is, and what it is made of."""

    score: float
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Document:
    """A document, and the JSON object that it came in."""

    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def _read(documents: Sequence[str]) -> list[_Document]:
    """Take documents, those of standard input in the place of ``-``."""
    found: list[_Document] = []
    for document in documents:
        if document != "-":
            found.append(_Document(document))
            continue
        lines = read_lines()
        is_json = lines[0].lstrip().startswith("{") and _object(lines[0]) is not None
        for number, line in enumerate(lines, 1):
            found.append(_of_json(line, number) if is_json else _Document(line))
    return found


def _of_json(line: str, number: int) -> _Document:
    found = _object(line)
    if found is None or not isinstance(found.get("text"), str):
        raise ValueError(
            f"line {number} of standard input is no JSON object with a text, as line 1 is"
            if number > 1
            else 'line 1 of standard input is a JSON object without a string "text"'
        )
    return _Document(found["text"], found)


def _object(line: str) -> dict[str, Any] | None:
    from m3_core.json_text import parse_json

    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _scores(query: str, documents: Sequence[_Document], options: _Options) -> list[_Found]:
    texts = [one.text for one in documents]
    if is_reranker(options.model):
        reranker = load_reranker(options.model, device=options.device, dtype=options.dtype)
        with reranker:
            pairs = [(query, text) for text in texts]
            values = reranker.compute_score(pairs, options.normalize)
        return [_Found(value, {}) for value in values]
    if options.normalize:
        raise ValueError(f"--normalize is for rerankers, and {options.model!r} is an encoder")
    with load_encoder(options.model, device=options.device, dtype=options.dtype) as encoder:
        return _of_encoder(encoder, query, texts, options.weights)


def _of_encoder(
    encoder: Encoder, query: str, texts: Sequence[str], weights: Sequence[float]
) -> list[_Found]:
    from m3_core.encoder import PARTS
    from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores, normalized_weights

    given = dict(zip(PARTS, normalized_weights(weights), strict=True))
    used = {part: given[part] for part in PARTS if part in encoder.representations}
    if not any(used.values()):
        raise ValueError(
            f"weights {tuple(weights)} leave nothing to score by: {encoder.name!r} gives "
            f"{', '.join(used)}"
        )
    flags = {
        "return_sparse": "sparse" in used,
        "return_colbert_vecs": "colbert" in used,
    }
    of_query = encoder.encode_queries([query], **flags)
    of_texts = encoder.encode_documents(texts, **flags)
    columns: dict[str, list[float]] = {}
    scorers = {"dense": dense_scores, "sparse": lexical_scores, "colbert": maxsim_scores}
    for part in used:
        both = (getattr(reps, PARTS[part]) for reps in (of_query, of_texts))
        columns[part] = scorers[part](*both)[0].tolist()  # type: ignore[operator]  # as the parts
    whole = sum(used.values())
    found = []
    for place in range(len(texts)):
        scores = {part: column[place] for part, column in columns.items()}
        total = sum(used[part] * value for part, value in scores.items()) / whole
        found.append(_Found(total, scores))
    return found
