"""``m3-retrieval index`` and ``search``."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from m3_core.cli.commands import NOTHING_FOUND, new_app
from m3_core.cli.console import (
    DEFAULT_MODEL,
    Device,
    Json,
    clean,
    note,
    output,
    progress,
    read_lines,
    waiting,
    write,
    write_line,
)
from m3_core.cli.models import lasting_name, load_encoder

if TYPE_CHECKING:
    from rich.text import Text

    from m3_core.collection import Hit
    from m3_core.encoder import Encoder
    from m3_core.folder_index import (
        FolderIndex,
        QueryWords,
        ReadingOptions,
        SavedSettings,
        Skipped,
        UpdateReport,
    )

app = new_app()

# Reasons that are no surprise are counted, others told by name up to so many.
_EXPECTED = ("hidden", "excluded", "files are not read without --include")
_TOLD = 20
_SNIPPET = 280

Index = Annotated[str, Argument(help="What m3-retrieval index has made.", metavar="INDEX")]


INDEX = """\
Index folders, or bring an index up to date.

Text, Markdown, HTML and JSON lines are cut into passages at headings and paragraphs. Stop it
whenever you like, and run it again: it goes on where it was. Files that have not changed are
not encoded anew; changed ones are, and deleted ones go. Later runs need only --to.

Examples:
  m3-retrieval index docs --to docs.m3
  m3-retrieval index --to docs.m3            again, with the same folders
  m3-retrieval index docs notes.md --to docs.m3 --model BAAI/bge-m3 --colbert
  m3-retrieval index src --to code.m3 --include '*.py' --exclude tests
  m3-retrieval index corpus.jsonl --to corpus.m3 --text-field contents
  m3-retrieval index --to docs.m3 --forget old      a folder that is no longer there

Each line of JSON lines is a document; its other fields are metadata for search --where. What
cannot be read is named on standard error, and with --json in "skipped".

Exit status: 0, 2 after an error, 130 after Ctrl-C.
"""


@app.command(help=INDEX)
def index(
    sources: Annotated[
        list[str] | None,
        Argument(
            help="Folders and files; - is standard input. Without any: those of last time.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    *,
    to: Annotated[str, Option(help="The index: a folder, made if need be.", metavar="INDEX")],
    model: Annotated[
        str | None,
        Option(
            help="An embedded model, a folder or a hub repository. The index remembers it. "
            f"[default: {DEFAULT_MODEL}, which comes with the package]",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None, Option(help="Tokens a passage at most. [default: 256]", show_default=False)
    ] = None,
    colbert: Annotated[
        bool | None,
        Option(
            "--colbert/--no-colbert",
            help="Store multi-vectors too: better rankings, many times the space.",
            show_default=False,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        Option(help="Read such files too, as text: '*.py'. Can be repeated.", metavar="PATTERN"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(help="Pass such files and folders over. Can be repeated.", metavar="PATTERN"),
    ] = None,
    hidden: Annotated[
        bool | None,
        Option("--hidden/--no-hidden", help="Read hidden files too.", show_default=False),
    ] = None,
    format: Annotated[
        str | None, Option(help="Read all as text, markdown, html or jsonl, whatever the ending.")
    ] = None,
    encoding: Annotated[
        str | None, Option(help="Of files that are not UTF-8, such as latin-1.")
    ] = None,
    text_field: Annotated[
        str | None, Option(help="Which field of JSON lines is the text. [default: text, …]")
    ] = None,
    max_bytes: Annotated[
        int | None, Option(help="Larger files are not read. [default: 64 MiB]", show_default=False)
    ] = None,
    forget: Annotated[
        list[str] | None,
        Option(help="Drop such a folder or file of last time. Can be repeated.", metavar="FOLDER"),
    ] = None,
    save_every: Annotated[
        float,
        Option(help="Save what is done after so many seconds.", metavar="SECONDS", min=0),
    ] = 15.0,
    device: Device = None,
    dtype: Annotated[
        str | None, Option(help="float32, bfloat16, float16, int8 or auto.", show_default=False)
    ] = None,
    verbose: Annotated[bool, Option("--verbose", help="Name every file that is not read.")] = False,
    as_json: Json = False,
) -> None:
    """Index folders, or bring an index up to date."""
    from m3_core.folder_index import SavedSettings, UpdateReport, check_sources

    _check_target(to)
    check_sources(sources or [])
    given: dict[str, Any] = {
        "include": tuple(include) if include else None,
        "exclude": tuple(exclude) if exclude else None,
        "hidden": hidden,
        "format": format,
        "encoding": encoding,
        "text_field": text_field,
        "max_bytes": max_bytes,
    }
    is_new = not (Path(to) / "index.json").exists()
    known = SavedSettings() if is_new else SavedSettings.load(to)
    reading = replace(known.reading, **{key: one for key, one in given.items() if one is not None})
    if is_new and not sources:
        raise ValueError(f"there is no index {to!r} yet: name a folder to index")
    if is_new and forget:
        raise ValueError(f"there is no index {to!r} yet, and --forget drops what is in one")
    made = _open(to, known, is_new, model, dtype, tokens, colbert, device)
    forgotten = made.forget(forget) if forget else 0
    if sources or made.settings.sources:
        report = _update(made, sources or [], reading, save_every)
    else:
        report = UpdateReport(passages=len(made))
    if forget and not as_json:
        note(f"dropped {forgotten:,} passages of {', '.join(forget)}")
    settings = made.settings
    if as_json:
        write({"index": to, "model": settings.model, **asdict(report)})
        return
    _tell_skipped(report.skipped, verbose=verbose)
    output().print(clean(_summary(to, settings.model, report)), soft_wrap=True)


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
    from m3_core.folder_index import QueryWords, SavedSettings

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
        found = _opened(index, encoder)
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


def _check_target(to: str) -> None:
    scheme = to.partition(":")[0]
    if scheme in ("qdrant", "milvus", "http", "https"):
        raise ValueError(
            f"--to {to}: an index is a folder; m3-retrieval load puts encoded texts into {scheme}"
        )


def _opened(path: str, encoder: Encoder) -> FolderIndex:
    from m3_core.folder_index import FolderIndex

    return FolderIndex(path, encoder)


def _open(
    to: str,
    known: SavedSettings,
    is_new: bool,  # noqa: FBT001
    model: str | None,
    dtype: str | None,
    tokens: int | None,
    colbert: bool | None,  # noqa: FBT001
    device: str | None,
) -> FolderIndex:
    from m3_core.folder_index import FolderIndex

    if is_new:
        parts = ("dense", "sparse", "colbert") if colbert else ("dense", "sparse")
        settings = replace(
            known,
            model=lasting_name(model or DEFAULT_MODEL),
            dtype=dtype or "auto",
            parts=parts,
            tokens=known.tokens if tokens is None else tokens,
        )
        encoder = load_encoder(settings.model, device=device, dtype=settings.dtype)
        if not colbert and "sparse" not in encoder.representations:
            settings = replace(settings, parts=("dense",))
        made = FolderIndex.create(to, settings, encoder)
        where = ", which comes with the package" if settings.model == DEFAULT_MODEL else ""
        note(f"new index {to} with the model {settings.model}{where}")
        return made
    if tokens not in (None, known.tokens):
        raise ValueError(
            f"{to} has passages of {known.tokens} tokens, asked for are {tokens}: leave --tokens "
            "out, or make a new index"
        )
    if colbert is not None and colbert != ("colbert" in known.parts):
        raise ValueError(
            f"{to} stores {', '.join(known.parts)}: leave --colbert and --no-colbert out, or make "
            "a new index"
        )
    encoder = load_encoder(model or known.model, device=device, dtype=dtype or known.dtype)
    return _opened(to, encoder)


def _update(
    made: FolderIndex, sources: list[str], reading: ReadingOptions, save_every: float
) -> UpdateReport:
    try:
        with progress("Indexing") as advance:
            return made.update(
                sources,
                reading=reading,
                stdin=lambda: sys.stdin.buffer.read(),
                on_progress=lambda state: advance(
                    state.done, state.files, f"{state.encoded:,} passages  {state.path}"
                ),
                save_every=save_every,
            )
    except KeyboardInterrupt:
        note(f"saved {len(made):,} passages; run it again to go on")
        raise


def _summary(to: str, model: str, report: UpdateReport) -> str:
    parts = [
        f"{report.added:,} new",
        f"{report.changed:,} changed",
        f"{report.removed:,} removed",
        f"{report.unchanged:,} as they were",
    ]
    return (
        f"{to}: {report.files:,} files ({', '.join(parts)}), {report.passages:,} passages "
        f"({report.encoded:,} encoded now), model {model}"
    )


def _tell_skipped(skipped: list[Skipped], *, verbose: bool) -> None:
    """Name what was not read, and count what nobody expects to be."""
    expected = Counter[str]()
    others = []
    for one in skipped:
        if one.reason.endswith(_EXPECTED) and not verbose:
            expected[one.reason] += 1
        else:
            others.append(one)
    shown = others if verbose else others[:_TOLD]
    for one in shown:
        done = "read in part" if one.in_part else "not read"
        note(f"{done}: {_near(one.path)}: {one.reason}")
    if len(others) > len(shown):
        note(f"not read: {len(others) - len(shown):,} more, which --verbose names")
    for reason, count in expected.most_common():
        note(f"not read: {count:,} {'entry' if count == 1 else 'entries'}: {reason}")


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
        place = clean(f"{_near(_file(hit))}:{hit.metadata['line']}")
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


def _near(path: str) -> str:
    """A path as one would write it here."""
    here = f"{Path.cwd().as_posix().rstrip('/')}/"
    return path.removeprefix(here) if path.startswith(here) else path
