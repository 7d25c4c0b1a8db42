"""What an index remembers beside its passages: model, sources, how they are read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.errors import IndexFileError
from m3_core.files import open_tensors, replacing_file
from m3_core.folder_index.reading import ReadingOptions
from m3_core.json_text import parse_json

if TYPE_CHECKING:
    import os

FORMAT, VERSION = "m3-folder-index", 1
SETTINGS, DOCUMENTS = "index.json", "documents.m3"


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
            if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
                raise ValueError(f"it is not of the format {FORMAT}")
            if (version := found.pop("version", None)) != VERSION:
                raise ValueError(
                    f"it is of version {version!r}, and this version of the package reads version "
                    f"{VERSION}: make the index anew, or use the version that made it"
                )
            reading = found.pop("reading")
            lists = {key: tuple(one) for key, one in found.items() if isinstance(one, list)}
            _check(found, reading)
            kept: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in reading.items()
            }
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


def _check(found: dict[str, Any], reading: Any) -> None:
    """Refuse values that would fail only where they are used."""
    kinds = {"model": str, "dtype": str, "fingerprint": str, "tokens": int}
    own = {"hidden": bool, "max_bytes": int}
    for values, expected, lists in (
        (found, kinds, ("parts", "sources")),
        (reading, own, ("include", "exclude")),
    ):
        for name, kind in expected.items():
            if not isinstance(values[name], kind):
                raise ValueError(f"{name!r} is {values[name]!r}")
        for name in lists:
            one = values[name]
            if not isinstance(one, list) or not all(isinstance(entry, str) for entry in one):
                raise ValueError(f"{name!r} is {one!r}")


def stored_passages(folder: str | os.PathLike[str]) -> int:
    """Count the passages of an index without reading them.

    Args:
        folder: The index.

    Returns:
        How many there are.

    Raises:
        IndexFileError: Their file is cut or damaged.
        OSError: It cannot be read.
    """
    path = Path(folder) / DOCUMENTS
    if not path.exists():
        return 0
    with open_tensors(path, "saved collection", "m3-collection", "1") as file:
        return int(file.metadata["documents"])
