"""An index of folders: brought up to date file by file, saved whole, whatever becomes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.collection import DEFAULT_WEIGHTS, DocumentCollection
from m3_core.encoder import PARTS, CachedEncoder
from m3_core.errors import IndexFileError
from m3_core.files import replacing_file
from m3_core.folder_index.passages import estimated_tokens, passages_of
from m3_core.folder_index.reading import (
    STDIN,
    ReadingOptions,
    Skipped,
    below,
    decoded,
    read_bytes,
    records_of,
    walk,
)
from m3_core.json_text import parse_json
from m3_core.saved_folders import locked

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from m3_core.collection import Hit
    from m3_core.encoder import TextEncoder
    from m3_core.filters import Filter
    from m3_core.folder_index.passages import Passage, TokenCounter
    from m3_core.folder_index.reading import SourceFile, Walk

FORMAT, VERSION = "m3-folder-index", 1
SETTINGS, DOCUMENTS = "index.json", "documents.m3"
# Characters of passages that are encoded at a time: what a kill loses at least.
CHUNK_CHARACTERS = 1 << 15
# Of the time, at most one part in so many goes into saving.
SAVING_SHARE = 10
REPRESENTATIONS = (*PARTS, "hybrid")
_SPECIAL_TOKENS = 4
_LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSettings:
    """What an index remembers beside its documents.

    Attributes:
        model: The model's name, or its folder.
        dtype: What it was loaded in.
        parts: What is stored of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        tokens: Tokens a passage at most.
        fingerprint: Of the encoder.
        sources: The folders and files that were indexed, absolute.
        reading: Which files are read, and how.
    """

    model: str = ""
    dtype: str = "auto"
    parts: tuple[str, ...] = ("dense", "sparse")
    tokens: int = 256
    fingerprint: str = ""
    sources: tuple[str, ...] = ()
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SavedSettings:
        """Read them.

        Args:
            folder: The index.

        Returns:
            The settings.

        Raises:
            FileNotFoundError: There is no such folder.
            IndexFileError: It is no index.
        """
        path = Path(folder) / SETTINGS
        try:
            found = parse_json(path.read_bytes())
            if (found.pop("format"), found.pop("version")) != (FORMAT, VERSION):
                raise ValueError("it is of another format or version")
            reading = found.pop("reading")
            lists = {key: tuple(one) for key, one in found.items() if isinstance(one, list)}
            kept = {key: tuple(v) if isinstance(v, list) else v for key, v in reading.items()}
            return cls(**{**found, **lists}, reading=ReadingOptions(**kept))
        except FileNotFoundError as error:
            if Path(folder).exists():
                raise IndexFileError(
                    f"{folder} is no index: it has no {SETTINGS}; m3-retrieval index FOLDER --to "
                    "INDEX makes one"
                ) from error
            raise FileNotFoundError(f"there is no index {str(folder)!r}") from error
        except (NotADirectoryError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise IndexFileError(
                f"{path} is not readable as an index's settings: {error}"
            ) from error

    def save(self, folder: Path) -> None:
        """Write them.

        Args:
            folder: The index; it exists.
        """
        described = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        with replacing_file(folder / SETTINGS) as file:
            file.write((json.dumps(described, ensure_ascii=False, indent=2) + "\n").encode())


@dataclass(slots=True)
class Progress:
    """How far an update is.

    Attributes:
        files: Files found.
        done: Of these, how many are dealt with.
        encoded: Passages encoded so far.
        path: The file that is read now.
    """

    files: int = 0
    done: int = 0
    encoded: int = 0
    path: str = ""


@dataclass(slots=True)
class UpdateReport:
    """What an update did.

    Attributes:
        files: Files that are in the index now, of those it was asked for.
        unchanged: Of these, how many were in it as they are.
        added: How many were not in it.
        changed: How many were in it otherwise.
        removed: Files that were in it and are no longer to be found.
        encoded: Passages that were encoded.
        passages: Passages in the whole index.
        skipped: What was not read, and files that were read in part.
    """

    files: int = 0
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    encoded: int = 0
    passages: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class FolderIndex:
    """Passages of files in a ``DocumentCollection``, kept in a folder of its own.

    The folder holds the settings, and one file with all passages that always is of one moment: a
    process that is killed leaves the one that was saved last. Which file a passage is of, and what
    that said, stands in its metadata, so that whatever was saved can be continued from.

    Args:
        folder: The index; it exists, with settings.
        encoder: The model of the settings.

    Attributes:
        folder: As given.
        settings: What the index remembers.
        collection: The passages.

    Raises:
        FileNotFoundError: There is no such folder.
        IndexFileError: It is no index, or of another model.
    """

    def __init__(self, folder: str | os.PathLike[str], encoder: TextEncoder) -> None:
        self.folder = Path(folder)
        self._encoder = encoder
        self._load()

    def _load(self) -> None:
        self.settings = SavedSettings.load(self.folder)
        encoder, parts = self._encoder, self.settings.parts
        encodings = CachedEncoder(encoder, parts)
        found = encodings.fingerprint(encodings.parts)
        if found != self.settings.fingerprint:
            raise IndexFileError(
                f"{self.folder} was made with the model {self.settings.model!r} (fingerprint "
                f"{self.settings.fingerprint}), and {encoder.name!r} ({found}) is another one or "
                "has other options: use the former, or make a new index"
            )
        self._loaded = self._state()
        if self._loaded is None:
            # The first run was killed before it saved anything.
            self.collection = DocumentCollection(encodings)
        else:
            self.collection = DocumentCollection.load(self.folder / DOCUMENTS, encodings)

    def _state(self) -> tuple[int, ...] | None:
        """What changes whenever the passages are saved."""
        try:
            status = (self.folder / DOCUMENTS).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], settings: SavedSettings, encoder: TextEncoder
    ) -> FolderIndex:
        """Make an index without passages.

        Args:
            folder: Where; it does not exist, or is empty.
            settings: What it shall remember; the fingerprint is filled in.
            encoder: The model.

        Returns:
            The index.

        Raises:
            FileExistsError: There is something else of that name.
            MissingRepresentationError: The model does not give what shall be stored.
            ValueError: Passages would be longer than the model reads, or shorter than 16 tokens.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise FileExistsError(
                f"{folder} is there already and is no index: give a new name, or an empty folder"
            )
        most = _most_tokens(encoder)
        if not _LEAST_TOKENS <= settings.tokens <= most:
            raise ValueError(
                f"passages of {settings.tokens} tokens were asked for; with {encoder.name!r}, "
                f"which reads {encoder.max_length}, they can have {_LEAST_TOKENS} to {most}"
            )
        # It refuses what the model does not give.
        fingerprint = CachedEncoder(encoder, settings.parts).fingerprint(settings.parts)
        place.mkdir(parents=True, exist_ok=True)
        dataclasses.replace(settings, fingerprint=fingerprint).save(place)
        return cls(place, encoder)

    def __len__(self) -> int:
        return len(self.collection)

    def update(
        self,
        sources: Sequence[str] = (),
        *,
        reading: ReadingOptions | None = None,
        stdin: Callable[[], bytes] = bytes,
        on_progress: Callable[[Progress], object] | None = None,
        save_every: float = 15.0,
    ) -> UpdateReport:
        """Make the index say what files say now.

        What is interrupted, by ``KeyboardInterrupt`` too, is saved as far as it is, and continued
        by the next call; files that are as they were are not encoded anew.

        Args:
            sources: Folders and files, ``"-"`` for standard input; by default all that were
                given before.
            reading: Which files are read, and how; by default as before.
            stdin: Gives what standard input says.
            on_progress: Is told how far it is; always the same object.
            save_every: Save after so many seconds, and less often where saving takes long.

        Returns:
            What was done.

        Raises:
            BlockingIOError: Another process brings the index up to date.
            FileNotFoundError: One of the sources is not there; nothing was changed.
            OSError: The index could not be saved.
        """
        with locked(self.folder, wait=False):
            if self._state() != self._loaded:
                # What another process has done meanwhile is not undone.
                self._load()
            own = self.settings
            options = reading or own.reading
            found = walk(list(sources) or list(own.sources), options, self.folder)
            scopes = [one for one in found.scopes if one != STDIN]
            remembered = tuple(dict.fromkeys((*own.sources, *scopes)))
            self.settings = dataclasses.replace(own, sources=remembered, reading=options)
            if self.settings != own:
                self.settings.save(self.folder)
            return _Update(self, found, stdin, on_progress, save_every).run()

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: Filter | None = None,
        representation: str = "hybrid",
        weights: Sequence[float] | None = None,
    ) -> list[Hit]:
        """Find the best passages.

        Args:
            query: The query.
            k: How many at most.
            where: Only passages with such metadata: ``path``, ``root``, ``format``, ``heading``,
                ``line`` and, of JSON lines, their own fields.
            representation: ``"dense"``, ``"sparse"``, ``"colbert"`` or ``"hybrid"``.
            weights: Of dense, sparse and multi-vector scores in a hybrid search.

        Returns:
            Best first; by lexical weights alone, only passages that share a token with the query.

        Raises:
            ValueError: There is no such representation, or the index does not store it.
            FilterError: The filter is not of the language.
        """
        if representation not in REPRESENTATIONS:
            raise ValueError(
                f"representation is {representation!r}; it must be of {', '.join(REPRESENTATIONS)}"
            )
        if representation != "hybrid":
            if weights is not None:
                raise ValueError(
                    "weights are for a hybrid search; leave them or representation out"
                )
            if representation not in self.settings.parts:
                raise ValueError(
                    f"{self.folder} stores {' and '.join(self.settings.parts)}, no "
                    f"{representation}: make a new index with it (m3-retrieval index --colbert)"
                )
            weights = [float(part == representation) for part in PARTS]
        exhaustive = True if representation in ("dense", "sparse") else None
        return self.collection.search(
            query, k, where=where, weights=weights or DEFAULT_WEIGHTS, exhaustive=exhaustive
        )

    def save(self) -> None:
        """Write all passages into the place of those that were saved before.

        Raises:
            OSError: Something could not be written; what was saved before is as it was.
        """
        self.collection.save(self.folder / DOCUMENTS)
        self._loaded = self._state()


@dataclass(slots=True)
class _Stored:
    """What an index holds of one file: ids of passages, by what the file said."""

    by_digest: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    whole: int = 0

    def is_whole(self, digest: str) -> bool:
        """Whether all passages are there, and no other ones."""
        return set(self.by_digest) == {digest} and len(self.by_digest[digest]) == self.whole

    def ids(self) -> list[str]:
        """All ids."""
        return [one for ids in self.by_digest.values() for one in ids]


@dataclass(slots=True)
class _Waiting:
    """Passages that are not encoded yet, and what goes when they are in."""

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    metadatas: list[dict[str, Any]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    characters: int = 0
    files: int = 0


class _Update:
    """One run of ``FolderIndex.update``."""

    def __init__(
        self,
        index: FolderIndex,
        found: Walk,
        stdin: Callable[[], bytes],
        on_progress: Callable[[Progress], object] | None,
        save_every: float,
    ) -> None:
        self._index, self._found, self._stdin = index, found, stdin
        self._tell, self._save_every = on_progress, save_every
        self._collection = index.collection
        self._options = index.settings.reading
        self._count = _counter(index._encoder)
        self._report = UpdateReport(skipped=list(found.skipped))
        self._progress = Progress(files=len(found.files))
        self._waiting = _Waiting()
        self._stored = self._what_is_stored()
        self._kept = set[str]()
        self._saved_at, self._saving_took, self._is_saved = time.monotonic(), 0.0, True

    def run(self) -> UpdateReport:
        """Read all files, encode what is new, and drop what is gone."""
        try:
            for file in self._found.files:
                self._progress.path = file.path
                self._show()
                self._take(file)
            self._flush()
            self._drop()
        finally:
            # What is encoded is kept, whatever ended this.
            if not self._is_saved:
                self._index.save()
        if not (self._index.folder / DOCUMENTS).exists():
            self._index.save()
        report = self._report
        report.passages, report.encoded = len(self._collection), self._progress.encoded
        report.files = report.unchanged + report.added + report.changed
        return report

    def _what_is_stored(self) -> dict[str, _Stored]:
        found: dict[str, _Stored] = defaultdict(_Stored)
        for one, _, metadata in self._collection.get(self._collection.ids()):
            stored = found[one.rpartition("#")[0]]
            stored.by_digest[metadata["digest"]].append(one)
            stored.whole = metadata["passages"]
        return dict(found)

    def _take(self, file: SourceFile) -> None:
        source, stored = file.source, self._stored.get(file.source)
        try:
            data = self._read(file)
            digest = _digest(data, file, self._index.settings)
            if stored is not None and stored.is_whole(digest):
                self._kept.add(source)
                self._report.unchanged += 1
                self._progress.done += 1
                return
            records, problem = records_of(
                decoded(data, self._options, file.format), file.format, self._options
            )
        except OSError as error:
            # What it said when it could be read stays.
            self._kept.add(source)
            self._skip(file, f"cannot be read: {error.strerror or error}")
            return
        except ValueError as error:
            self._skip(file, str(error))
            return
        passages = [
            (passage, record.metadata)
            for record in records
            for passage in passages_of(record.blocks, self._index.settings.tokens, self._count)
        ]
        if problem:
            self._report.skipped.append(Skipped(source, problem))
        if not passages:
            if not problem:
                self._skip(file, "no text in it")
            return
        self._kept.add(source)
        self._enqueue(file, digest, passages, stored)

    def _read(self, file: SourceFile) -> bytes:
        if not file.root:
            return self._stdin()
        most = None if file.format == "jsonl" else self._options.max_bytes
        return read_bytes(Path(file.source), most)

    def _enqueue(
        self,
        file: SourceFile,
        digest: str,
        passages: Sequence[tuple[Passage, Mapping[str, Any]]],
        stored: _Stored | None,
    ) -> None:
        # A run that was interrupted within the file has left some of them.
        there = set(stored.by_digest.get(digest, ())) if stored else set[str]()
        waiting = self._waiting
        ids = [f"{file.source}#{number}" for number in range(len(passages))]
        if stored is not None:
            waiting.stale += set(stored.ids()) - set(ids)
        if stored is None or there:
            self._report.added += 1
        else:
            self._report.changed += 1
        for number, (one, (passage, metadata)) in enumerate(zip(ids, passages, strict=True)):
            if one in there:
                continue
            waiting.ids.append(one)
            waiting.texts.append(passage.text)
            waiting.metadatas.append(
                {
                    **metadata,
                    "path": file.path,
                    "root": file.root,
                    "format": file.format,
                    "heading": passage.heading,
                    "line": passage.line,
                    "end_line": passage.end_line,
                    "passage": number,
                    "passages": len(passages),
                    "digest": digest,
                }
            )
            waiting.characters += len(passage.text)
            if waiting.characters >= CHUNK_CHARACTERS:
                self._flush()
                waiting = self._waiting
        waiting.files += 1

    def _flush(self) -> None:
        """Encode what waits, put it into the collection, and save that from time to time."""
        waiting, self._waiting = self._waiting, _Waiting()
        if waiting.texts:
            self._collection.add(waiting.texts, waiting.metadatas, waiting.ids)
            self._progress.encoded += len(waiting.texts)
            self._is_saved = False
        self._remove(waiting.stale)
        self._progress.done += waiting.files
        self._show()
        pause = max(self._save_every, SAVING_SHARE * self._saving_took)
        if not self._is_saved and time.monotonic() - self._saved_at >= pause:
            started = time.monotonic()
            self._index.save()
            self._is_saved = True
            self._saved_at = time.monotonic()
            self._saving_took = self._saved_at - started

    def _drop(self) -> None:
        """Remove the files that are gone, of those that were asked for."""
        for source, stored in self._stored.items():
            is_asked = any(below(source, self._found.scopes))
            if not is_asked or source in self._kept or any(below(source, self._found.unread)):
                continue
            self._report.removed += 1
            self._remove(stored.ids())

    def _remove(self, ids: Iterable[str]) -> None:
        if self._collection.delete(list(ids)):
            self._is_saved = False

    def _skip(self, file: SourceFile, reason: str) -> None:
        self._report.skipped.append(Skipped(file.source, reason))
        self._progress.done += 1

    def _show(self) -> None:
        if self._tell is not None:
            self._tell(self._progress)


def _digest(data: bytes, file: SourceFile, settings: SavedSettings) -> str:
    """Name what a file says, and all that decides how its passages come out."""
    digest = hashlib.blake2b(data, digest_size=16)
    reading = settings.reading
    how = (VERSION, file.format, settings.tokens, reading.encoding, reading.text_field)
    digest.update(repr(how).encode())
    return digest.hexdigest()


def _counter(encoder: TextEncoder) -> TokenCounter:
    counter: TokenCounter = getattr(encoder, "count_tokens", estimated_tokens)
    return counter


def _most_tokens(encoder: TextEncoder) -> int:
    (instruction,) = _counter(encoder)([encoder.document_instruction], encoder.max_length)
    return encoder.max_length - instruction - _SPECIAL_TOKENS
