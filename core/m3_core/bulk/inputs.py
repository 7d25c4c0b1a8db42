"""The files of a corpus: found, told apart, and recognised when they have changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3_core.bulk.rows import Position, read_rows
from m3_core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from m3_core.bulk.rows import Row

_KINDS = {
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "parquet": (".parquet", ".pq"),
    "text": (".txt", ".text", ".md", ".markdown", ".rst"),
}
_PIECE = 1 << 20
# Of more files than these only the number is remembered by name.
_NAMED = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a corpus.

    Attributes:
        root: What the user named, made absolute.
        files: In the order of their names.
        kind: ``"jsonl"``, ``"csv"``, ``"parquet"`` or ``"text"``.
    """

    root: Path
    files: tuple[Path, ...]
    kind: str

    @classmethod
    def find(cls, root: Path, format: str = "auto") -> Source:
        """Find the files of a corpus.

        Args:
            root: A file, or a folder with files of one kind, those in folders below included;
                hidden ones and those that begin with ``_`` are passed over.
            format: The kind of file; ``"auto"`` tells by the names.

        Returns:
            The corpus.

        Raises:
            FileNotFoundError: There is no such file or folder.
            DatasetError: The kind cannot be told, or there are no files.
        """
        root = root.absolute()
        if not root.exists():
            raise FileNotFoundError(f"there is no file or folder {root}")
        if not root.is_dir():
            kind = format if format != "auto" else _kind_of(root)
            if kind is None:
                raise DatasetError(f"{root} has none of the endings {_endings()}: name its format")
            return cls(root, (root,), kind)
        listed = list(_visible(root))
        if format == "text":
            return cls(root, tuple(_some(root, listed)), format)
        by_kind: dict[str, list[Path]] = {}
        for path in listed:
            if (kind := _kind_of(path)) is not None:
                by_kind.setdefault(kind, []).append(path)
        if format != "auto":
            return cls(root, tuple(_some(root, by_kind.get(format, []))), format)
        if len(by_kind) > 1:
            counts = ", ".join(f"{len(own)} of {kind}" for kind, own in by_kind.items())
            raise DatasetError(f"{root} holds files of several kinds, {counts}: name one format")
        kind, found = next(iter(by_kind.items()), ("", []))
        return cls(root, tuple(_some(root, found)), kind)

    @property
    def folder(self) -> Path:
        """What names of files are relative to."""
        return self.root if self.root.is_dir() else self.root.parent

    def rows(self, start: Position = Position()) -> Iterator[Row]:  # noqa: B008 (frozen)
        """Read rows.

        Args:
            start: Where to begin.

        Returns:
            All from there on.
        """
        return read_rows(self.files, self.kind, start, self.folder)

    def described(self, advance: Callable[[int], object] | None = None) -> dict[str, Any]:
        """Name the content of all files, to recognise it; they are read for that.

        Args:
            advance: Told of bytes that were read.

        Returns:
            As JSON has it.
        """
        total = hashlib.blake2b(digest_size=16)
        named = []
        for path in self.files:
            own, size = hashlib.blake2b(digest_size=16), 0
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    own.update(piece)
                    size += len(piece)
                    if advance is not None:
                        advance(len(piece))
            name = path.relative_to(self.folder).as_posix()
            total.update(f"{name}\n{own.hexdigest()}\n".encode(errors="surrogateescape"))
            if len(self.files) <= _NAMED:
                named.append([name, size, own.hexdigest()])
        return {
            "kind": self.kind,
            "count": len(self.files),
            "files": named,
            "digest": total.hexdigest(),
        }

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what differs between two corpora.

    Args:
        before: What ``described`` gave then.
        now: And now.

    Returns:
        Empty if nothing does.
    """
    if before == now:
        return ""
    old, new = ({one[0]: one[1:] for one in each["files"]} for each in (before, now))
    said = [
        *(f"{name} is gone" for name in sorted(old.keys() - new.keys())),
        *(f"{name} is new" for name in sorted(new.keys() - old.keys())),
        *(
            f"{name} has changed"
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        ),
    ]
    counted = f"there were {before['count']} files, there are {now['count']}"
    return ", ".join(said[:3]) or (
        counted if before["count"] != now["count"] else "the content of its files has changed"
    )


def _visible(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if not any(part[0] in "._" for part in path.relative_to(root).parts) and path.is_file():
            yield path


def _kind_of(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind, endings in _KINDS.items() if name.endswith(endings)), None)


def _endings() -> str:
    return " ".join(ending for endings in _KINDS.values() for ending in endings)


def _some(root: Path, files: list[Path]) -> list[Path]:
    if not files:
        raise DatasetError(f"{root} holds no files of a format that is read: {_endings()}")
    return files
