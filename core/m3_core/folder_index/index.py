"""An index of folders: brought up to date file by file, saved whole, whatever becomes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from m3_core.collection import DEFAULT_WEIGHTS, DocumentCollection
from m3_core.encoder import PARTS, CachedEncoder
from m3_core.errors import IndexFileError
from m3_core.files import remove_leftovers
from m3_core.folder_index.passages import estimated_tokens
from m3_core.folder_index.reading import STDIN, Skipped, below, place_of, rooted, walk
from m3_core.folder_index.settings import DOCUMENTS, SETTINGS, SavedSettings
from m3_core.folder_index.updating import Update
from m3_core.saved_folders import locked

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from m3_core.collection import Hit
    from m3_core.encoder import TextEncoder
    from m3_core.filters import Filter
    from m3_core.folder_index.passages import TokenCounter
    from m3_core.folder_index.reading import ReadingOptions
    from m3_core.folder_index.updating import Progress, UpdateReport

REPRESENTATIONS = (*PARTS, "hybrid")
GONE = "no longer there; what it said stays until --forget drops it"
_SPECIAL_TOKENS = 4
_LEAST_TOKENS = 16


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
        # Of a first run that was killed at once.
        remove_leftovers(place / SETTINGS)
        _check_free(place)
        most = _most_tokens(encoder)
        if not _LEAST_TOKENS <= settings.tokens <= most:
            raise ValueError(
                f"passages of {settings.tokens} tokens were asked for; with {encoder.name!r}, "
                f"which reads {encoder.max_length}, they can have {_LEAST_TOKENS} to {most}"
            )
        # It refuses what the model does not give.
        fingerprint = CachedEncoder(encoder, settings.parts).fingerprint(settings.parts)
        place.mkdir(parents=True, exist_ok=True)
        with locked(place):
            # Another process may have made one since.
            _check_free(place)
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
                given before. Of these, what is no longer there is told, and keeps its passages.
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
            self._catch_up()
            own = self.settings
            options = reading or own.reading
            gone = [] if sources else [one for one in own.sources if not Path(one).exists()]
            if gone and len(gone) == len(own.sources):
                raise FileNotFoundError(
                    f"nothing is there of what {self.folder} was made from: {', '.join(gone)}"
                )
            asked = list(sources) or [one for one in own.sources if one not in gone]
            found = walk(asked, options, self.folder)
            found.skipped += [Skipped(one, GONE) for one in gone]
            scopes = [one for one in found.scopes if one != STDIN]
            remembered = tuple(dict.fromkeys((*own.sources, *scopes)))
            found.files = [rooted(one, remembered) for one in found.files]
            self.settings = dataclasses.replace(own, sources=remembered, reading=options)
            if self.settings != own:
                self.settings.save(self.folder)
            update = Update(
                self.collection, self.settings, found, _counter(self._encoder), self.save
            )
            report = update.run(stdin, on_progress, save_every)
            if self._loaded is None:
                # An index of nothing is one too.
                self.save()
            return report

    def forget(self, sources: Sequence[str]) -> int:
        """Drop folders and files that were indexed, with their passages.

        Args:
            sources: As they were given to ``update``; they need not be there any more.

        Returns:
            How many passages went.

        Raises:
            BlockingIOError: Another process brings the index up to date.
            ValueError: One of them is none that was indexed.
            OSError: The index could not be saved.
        """
        with locked(self.folder, wait=False):
            self._catch_up()
            own = self.settings
            named = [place_of(one).as_posix() for one in sources]
            for given, one in zip(sources, named, strict=True):
                if one not in own.sources:
                    raise ValueError(
                        f"{given!r} is none of what {self.folder} was made from: "
                        f"{', '.join(own.sources)}"
                    )
            kept = tuple(one for one in own.sources if one not in named)
            # What lies in a folder that stays is read again from there.
            ids = [
                one
                for one in self.collection.ids()
                if any(below(one.rpartition("#")[0], named))
                and not any(below(one.rpartition("#")[0], kept))
            ]
            self.collection.delete(ids)
            self.save()
            self.settings = dataclasses.replace(own, sources=kept)
            self.settings.save(self.folder)
            return len(ids)

    def _catch_up(self) -> None:
        """Take over what another process has done meanwhile, which shall not be undone."""
        if self._state() != self._loaded or SavedSettings.load(self.folder) != self.settings:
            self._load()

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


def _check_free(place: Path) -> None:
    if (place / SETTINGS).exists():
        raise FileExistsError(
            f"{place} has just been made by another process: run it again to bring it up to date"
        )
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FileExistsError(
            f"{place} is there already and is no index: give a new name, or an empty folder"
        )


def _counter(encoder: TextEncoder) -> TokenCounter:
    counter: TokenCounter = getattr(encoder, "count_tokens", estimated_tokens)
    return counter


def _most_tokens(encoder: TextEncoder) -> int:
    (instruction,) = _counter(encoder)([encoder.document_instruction], encoder.max_length)
    return encoder.max_length - instruction - _SPECIAL_TOKENS
