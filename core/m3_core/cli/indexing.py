"""``m3-retrieval index``."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from m3_core.cli.commands import new_app
from m3_core.cli.console import (
    DEFAULT_MODEL,
    Device,
    Json,
    clean,
    near,
    note,
    output,
    progress,
    write,
)
from m3_core.cli.models import lasting_name, load_encoder

if TYPE_CHECKING:
    from m3_core.folder_index import (
        FolderIndex,
        ReadingOptions,
        SavedSettings,
        Skipped,
        UpdateReport,
    )

app = new_app()

# Reasons that are no surprise are counted, others told by name up to so many.
_EXPECTED = ("hidden", "excluded", "files are not read without --include")
_TOLD = 20

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


def _check_target(to: str) -> None:
    scheme = to.partition(":")[0]
    if scheme in ("qdrant", "milvus", "http", "https"):
        raise ValueError(
            f"--to {to}: an index is a folder; m3-retrieval load puts encoded texts into {scheme}"
        )


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
    return FolderIndex(to, encoder)


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
        note(f"{done}: {near(one.path)}: {one.reason}")
    if len(others) > len(shown):
        note(f"not read: {len(others) - len(shown):,} more, which --verbose names")
    for reason, count in expected.most_common():
        note(f"not read: {count:,} {'entry' if count == 1 else 'entries'}: {reason}")
