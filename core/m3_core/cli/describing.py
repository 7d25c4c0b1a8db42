"""``m3-retrieval info``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from m3_core.cli.commands import new_app
from m3_core.cli.console import DEFAULT_MODEL, Json, write, write_pairs
from m3_core.cli.models import is_reranker, load_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

app = new_app()

_LICENCE = re.compile(rb"^license:[ \t]*([^\r\n]+)", re.MULTILINE)
_FRONT = 1 << 16


INFO = """\
Say what a model or an index is.

Representations, sizes, lengths, instructions, files, licence and fingerprint.

Examples:
  m3-retrieval info m3-small
  m3-retrieval info BAAI/bge-m3 --json
  m3-retrieval info docs.m3                  an index: its model, files and passages

An encoder is loaded for it, so what is shown is what works.
"""


@app.command(help=INFO)
def info(
    model: Annotated[
        str,
        Argument(
            help="An embedded model, a folder, a hub repository, or an index.", metavar="MODEL"
        ),
    ] = DEFAULT_MODEL,
    *,
    as_json: Json = False,
) -> None:
    """Say what a model or an index is."""
    found = _of_index(Path(model)) if (Path(model) / "index.json").is_file() else _of_model(model)
    if as_json:
        write(found)
    else:
        write_pairs((name, _shown(name, value)) for name, value in found.items())


def _of_model(name: str) -> dict[str, Any]:
    from m3_core.network import locate, read_checkpoint

    folder = locate(name)
    checkpoint = read_checkpoint(folder, name)
    if is_reranker(name):
        from m3_core.rerankers import reranker_kind_at

        own: dict[str, Any] = {
            "kind": f"reranker ({reranker_kind_at(name)})",
            "max_length": checkpoint.default_length,
        }
    else:
        with load_encoder(name, device="cpu") as encoder:
            order = ("dense", "sparse", "colbert")
            own = {
                "kind": "encoder",
                "representations": [one for one in order if one in encoder.representations],
                "dimension": encoder.dimension,
                "colbert_dimension": encoder.colbert_dimension,
                "max_length": encoder.max_length,
                "vocabulary_size": encoder.vocabulary_size,
                "pooling": encoder.options.pooling,
                "query_instruction": encoder.query_instruction,
                "document_instruction": encoder.document_instruction,
                "fingerprint": encoder.fingerprint(encoder.representations),
            }
    config = checkpoint.config
    network = {
        "architecture": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
    }
    files = dict(_files(folder))
    return {
        "model": name,
        **own,
        **{key: value for key, value in network.items() if value is not None},
        "licence": _licence(folder),
        "folder": str(folder),
        "bytes": sum(files.values()),
        "files": files,
    }


def _of_index(folder: Path) -> dict[str, Any]:
    from m3_core.folder_index import SavedSettings, stored_passages

    settings = SavedSettings.load(folder)
    files = dict(_files(folder))
    return {
        "index": str(folder),
        "model": settings.model,
        "fingerprint": settings.fingerprint,
        "stored": list(settings.parts),
        "tokens": settings.tokens,
        "sources": list(settings.sources),
        "passages": stored_passages(folder),
        "bytes": sum(files.values()),
        "files": files,
    }


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size


def _licence(folder: Path) -> str:
    """What the model card says, or where to look."""
    card = folder / "README.md"
    if card.is_file():
        with card.open("rb") as file:
            start = file.read(_FRONT)
        match = _LICENCE.search(start) if start.startswith(b"---") else None
        if match:
            return match[1].decode("utf-8", "replace").partition(" #")[0].strip()
    for own in sorted(folder.glob("LICEN[CS]E*")):
        return f"see {own.name}"
    return "not stated in its files: see where it is from"


def _shown(name: str, value: Any) -> str:
    if name == "files":
        return "\n".join(f"{path}  {_size(size)}" for path, size in value.items())
    if name == "bytes":
        return _size(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name.endswith("instruction"):
        return repr(value) if value else "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
