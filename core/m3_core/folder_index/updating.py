"""One run that makes an index say what files say now."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.folder_index.passages import passages_of
from m3_core.folder_index.reading import Skipped, below, decoded, read_bytes, records_of
from m3_core.folder_index.settings import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from m3_core.collection import DocumentCollection
    from m3_core.folder_index.passages import Passage, TokenCounter
    from m3_core.folder_index.reading import SourceFile, Walk
    from m3_core.folder_index.settings import SavedSettings

# Characters of passages that are encoded at a time, at first and at most: more and more, as long
# as it takes less than so many seconds. Slow machines show how far they are, and lose little.
CHUNK_CHARACTERS, LARGEST_CHUNK = 1 << 13, 1 << 18
CHUNK_SECONDS = 1.0
# Of the time, at most one part in so many goes into saving.
SAVING_SHARE = 10


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


class Update:
    """One run of ``FolderIndex.update``.

    Args:
        collection: The passages.
        settings: How files are read and cut.
        found: The files.
        count: Of ``passages_of``.
        save: Saves the collection.
    """

    def __init__(
        self,
        collection: DocumentCollection,
        settings: SavedSettings,
        found: Walk,
        count: TokenCounter,
        save: Callable[[], None],
    ) -> None:
        self._collection, self._settings, self._found = collection, settings, found
        self._count, self._save = count, save
        self._report = UpdateReport(skipped=list(found.skipped))
        self._progress = Progress(files=len(found.files))
        self._waiting = _Waiting()
        self._stored = self._what_is_stored()
        self._kept = set[str]()
        self._chunk = CHUNK_CHARACTERS
        self._saved_at, self._saving_took, self._is_saved = time.monotonic(), 0.0, True

    def run(
        self,
        stdin: Callable[[], bytes],
        tell: Callable[[Progress], object] | None,
        save_every: float,
    ) -> UpdateReport:
        """Read all files, encode what is new, and drop what is gone.

        Args:
            stdin: Gives what standard input says.
            tell: Is told how far it is.
            save_every: Save after so many seconds at least.

        Returns:
            What was done.
        """
        self._stdin, self._tell, self._save_every = stdin, tell, save_every
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
                self._save()
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
            digest = _digest(data, file, self._settings)
            if stored is not None and stored.is_whole(digest):
                self._kept.add(source)
                self._report.unchanged += 1
                self._progress.done += 1
                return
            text = decoded(data, self._settings.reading, file.format)
            records, problem = records_of(text, file.format, self._settings.reading)
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
            for passage in passages_of(record.blocks, self._settings.tokens, self._count)
        ]
        if problem:
            self._report.skipped.append(Skipped(source, problem, in_part=bool(passages)))
        if not passages:
            if not problem:
                self._skip(file, "no text in it")
            return
        self._kept.add(source)
        self._enqueue(file, digest, passages, stored)

    def _read(self, file: SourceFile) -> bytes:
        if not file.root:
            return self._stdin()
        most = None if file.format == "jsonl" else self._settings.reading.max_bytes
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
            if waiting.characters >= self._chunk:
                self._flush()
                waiting = self._waiting
        waiting.files += 1

    def _flush(self) -> None:
        """Encode what waits, put it into the collection, and save that from time to time."""
        waiting, self._waiting = self._waiting, _Waiting()
        if waiting.texts:
            started = time.monotonic()
            self._collection.add(waiting.texts, waiting.metadatas, waiting.ids)
            if time.monotonic() - started < CHUNK_SECONDS:
                self._chunk = min(2 * self._chunk, LARGEST_CHUNK)
            self._progress.encoded += len(waiting.texts)
            self._is_saved = False
        self._remove(waiting.stale)
        self._progress.done += waiting.files
        self._show()
        pause = max(self._save_every, SAVING_SHARE * self._saving_took)
        if not self._is_saved and time.monotonic() - self._saved_at >= pause:
            started = time.monotonic()
            self._save()
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
    # Options that this file is not read by are none of its.
    text_field = reading.text_field if file.format == "jsonl" else None
    encoding = reading.encoding if reading.encoding and not _is_utf8(data) else None
    how = (VERSION, file.root, file.format, settings.tokens, encoding, text_field)
    digest.update(repr(how).encode())
    return digest.hexdigest()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
