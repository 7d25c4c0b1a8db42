"""``m3-retrieval search``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from m3_core.cli.commands import NOTHING_FOUND, new_app
from m3_core.cli.console import (
    Device,
    Json,
    clean,
    near,
    note,
    output,
    read_lines,
    waiting,
    write_line,
)
from m3_core.cli.models import load_encoder

if TYPE_CHECKING:
    from rich.text import Text

    from m3_core.collection import Hit
    from m3_core.encoder import Encoder
    from m3_core.folder_index import QueryWords

app = new_app()

_SNIPPET = 280

Index = Annotated[str, Argument(help="What m3-retrieval index has made.", metavar="INDEX")]

SEARCH = """\
Find passages by meaning and by words.

Examples:
  m3-retrieval search docs.m3 "how do I install it?"
  m3-retrieval search docs.m3 "Fehler 4711" -r sparse -k 20
  m3-retrieval search docs.m3 cache --where '{"path": "guide/cache.md"}'
  m3-retrieval search docs.m3 "how?" --json | jq -r .file
  m3-retrieval search docs.m3 - --json < queries.txt

--where takes $eq $ne $gt $gte $lt $lte $in $nin $and $or $not over path (in its folder),
root (that folder), format, heading, line, and the fields of JSON lines.

In a pipe, each passage is a line: score, file and line, heading and text, with tabs between.
--json writes one object a line: query, rank, score, scores, file, path, line, end_line,
heading, text, highlights (start and end of matched words in text) and metadata.

Exit status: 0, 1 if nothing was found, 2 after an error.
"""


@app.command(help=SEARCH)
def search(
    index: Index,
    query: Annotated[
        str,
        Argument(
            help="What to look for; - reads queries from standard input, one a line.",
            metavar="QUERY",
        ),
    ],
    *,
    k: Annotated[int, Option("-k", help="How many passages at most.", metavar="N", min=1)] = 5,
    where: Annotated[
        str | None,
        Option(help="Only passages with such metadata, as JSON.", metavar="FILTER"),
    ] = None,
    representation: Annotated[
        str, Option("--representation", "-r", help="dense, sparse, colbert or hybrid.")
    ] = "hybrid",
    weights: Annotated[
        tuple[float, float, float] | None,
        Option(
            help="Of dense, sparse and colbert scores in the hybrid. [default: 1 0.3 1]",
            metavar="DENSE SPARSE COLBERT",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool, Option("--full", help="Show whole passages, not the best piece.")
    ] = False,
    model: Annotated[
        str | None, Option(help="Where the index's model is now, if it was moved.")
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str | None, Option(help="By default as the index was made with.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Find passages by meaning and by words."""
    from m3_core.filters import parse_filter
    from m3_core.folder_index import FolderIndex, QueryWords, SavedSettings

    settings = SavedSettings.load(index)
    wanted = _filter(where)
    parse_filter(wanted)
    queries = read_lines() if query == "-" else [query]
    if not query.strip():
        raise ValueError("the query is empty")
    encoder = load_encoder(
        model or settings.model, device=device, dtype=settings.dtype if dtype is None else dtype
    )
    with waiting(f"Reading {index}"):
        found = FolderIndex(index, encoder)
    count = 0
    for one in queries:
        hits = found.search(one, k, where=wanted, representation=representation, weights=weights)
        words = QueryWords.of(one, _weights(encoder, one))
        count += len(hits)
        if as_json:
            for rank, hit in enumerate(hits, 1):
                write_line(_as_json(one, rank, hit, words))
        else:
            _show(one, hits, words, named=len(queries) > 1, full=full)
    if not count:
        if not as_json:
            note(f"nothing found among {len(found):,} passages")
        raise typer.Exit(NOTHING_FOUND)


def _filter(where: str | None) -> dict[str, Any] | None:
    from m3_core.json_text import parse_json

    if where is None:
        return None
    try:
        found = parse_json(where)
    except ValueError as error:
        raise ValueError(
            f'--where {where!r} is not JSON ({error}); write \'{{"path": "faq.md"}}\''
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"--where is a JSON object; got {where!r}")
    return found


def _weights(encoder: Encoder, query: str) -> dict[str, float] | None:
    """Lexical weights of a query's tokens, by their texts."""
    if "sparse" not in encoder.representations:
        return None
    reps = encoder.encode_queries([query], return_dense=False, return_sparse=True)
    if reps.lexical_weights is None:
        return None
    return encoder.decode_weights(reps.lexical_weights[0])


def _as_json(query: str, rank: int, hit: Hit, words: QueryWords) -> dict[str, Any]:
    from m3_core.folder_index import body_of, matches

    metadata = dict(hit.metadata)
    path, line, end_line, heading = (
        metadata.pop(key) for key in ("path", "line", "end_line", "heading")
    )
    text = body_of(hit.text, heading)
    for key in ("digest", "passage", "passages"):
        metadata.pop(key)
    return {
        "query": query,
        "rank": rank,
        "score": hit.score,
        "scores": hit.scores,
        "file": _file(hit),
        "path": path,
        "line": line,
        "end_line": end_line,
        "heading": heading,
        "text": text,
        "highlights": [list(one) for one in matches(words, text)],
        "metadata": metadata,
    }


def _show(query: str, hits: list[Hit], words: QueryWords, *, named: bool, full: bool) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console = output()
    is_pipe = not console.is_terminal
    if named and not is_pipe:
        console.print(Text(clean(query), style="bold underline"))
    for rank, hit in enumerate(hits, 1):
        heading = clean(hit.metadata["heading"])
        place = clean(f"{near(_file(hit))}:{hit.metadata['line']}")
        snippet = _snippet(hit, words, full=full and not is_pipe)
        if is_pipe:
            cells = [f"{hit.score:.4f}", place, heading, snippet.plain]
            sys.stdout.write("\t".join([*([clean(query)] if named else []), *cells]) + "\n")
            continue
        head = Text.assemble(
            (f"{rank:>2}. ", "dim"),
            (place, "cyan"),
            (f"  {heading}" if heading else "", "bold"),
            (f"  {hit.score:.3f}", "dim"),
        )
        console.print(head)
        console.print(Padding(snippet, (0, 0, 0, 4)))
        console.print()


def _snippet(hit: Hit, words: QueryWords, *, full: bool) -> Text:
    from rich.text import Text

    from m3_core.folder_index import body_of, matches, window

    text = body_of(hit.text, hit.metadata["heading"])
    spans = matches(words, text)
    start, end = (0, len(text)) if full else window(text, spans, _SNIPPET)
    # Each character stays one, so that the spans stay right.
    piece = Text(clean(text[start:end], lines=full))
    for first, last in spans:
        if first >= start and last <= end:
            piece.stylize("bold yellow", first - start, last - start)
    return Text.assemble("… " if start else "", piece, " …" if end < len(text) else "")


def _file(hit: Hit) -> str:
    root, path = hit.metadata["root"], hit.metadata["path"]
    return f"{root.rstrip('/')}/{path}" if root else str(path)
