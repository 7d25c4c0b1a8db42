"""What a bulk job is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from m3_core.arguments import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

Format = Literal["auto", "jsonl", "csv", "parquet", "text"]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How rows are read, and what is written of them.

    Args:
        format: ``"jsonl"``, ``"csv"``, ``"parquet"``, ``"text"`` (each file is a document, its
            path the id); ``"auto"`` tells by the names of the files.
        text_columns: Where the text is; those of several are joined by a space, the empty ones
            left out, as BEIR's title and text.
        id_column: Where the id is, a string or a whole number; by default ``"id"`` if the first
            row has it, else documents are numbered from 0 on.
        metadata_columns: What is kept beside; ``None`` for all other columns.
        keep_text: Write the texts too, without which the documents cannot be loaded.
        representations: Of ``"dense"``, ``"sparse"`` and ``"colbert"``; ``None`` for all that
            the model gives.
        shard_rows: Documents a file at most; a killed job loses at most one file a process.
        on_error: What to do with rows that hold no document: ``"stop"`` before anything is
            encoded, or ``"skip"``, which writes them into ``_skipped.jsonl``.

    Raises:
        ValueError: A value is none of its choices.
        TypeError: ``shard_rows`` is no whole number.
    """

    format: Format = "auto"
    text_columns: Sequence[str] = ("text",)
    id_column: str | None = None
    metadata_columns: Sequence[str] | None = None
    keep_text: bool = True
    representations: Sequence[str] | None = None
    shard_rows: int = 4096
    on_error: OnError = "stop"

    def __post_init__(self) -> None:
        check_count("shard_rows", self.shard_rows)
        for name, choices in (("format", Format), ("on_error", OnError)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}; "
                    f"got {getattr(self, name)!r}"
                )
        for name in ("text_columns", "metadata_columns", "representations"):
            value = getattr(self, name)
            if isinstance(value, str):
                value = (value,)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if not self.text_columns:
            raise ValueError("text_columns must name at least one column")

    def shaping(self) -> dict[str, Any]:
        """Name what changes the rows that are written, as JSON has it.

        Returns:
            All but the representations, which the model's description names.
        """
        return {
            "format": self.format,
            "text_columns": list(self.text_columns),
            "id_column": self.id_column,
            "metadata_columns": (
                None if self.metadata_columns is None else list(self.metadata_columns)
            ),
            "keep_text": self.keep_text,
            "shard_rows": self.shard_rows,
            "on_error": self.on_error,
        }
