"""Fields that all adapters have: which model, and what changes its vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from m3_core import Encoder
    from m3_core.adapter import AdapterEncoder

_INSTRUCTIONS = ("query_instruction", "document_instruction")


class EncoderFields(BaseModel):
    """The options of a model; it is loaded once a process for all objects with the same ones."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

    parts: ClassVar[tuple[str, ...]] = ("dense",)
    """What the adapter needs of ``"dense"``, ``"sparse"`` and ``"colbert"``."""

    model_name: str = "BAAI/bge-m3"
    """Local folder or hub repository."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    device: str | None = None
    """``"cpu"``, ``"cuda"``, ``"mps"``; by default the best there is."""
    dtype: str = "auto"
    """Data type of the network; ``"float32"`` gives reference numbers."""
    max_length: int | None = None
    """Tokens a text at most; by default what the model allows."""
    query_instruction: str | None = None
    """Put before queries; by default the model's own, ``""`` for none."""
    document_instruction: str | None = None
    """Put before documents, likewise."""
    cache_folder: str | None = None
    """Where downloads are kept."""
    token: str | None = Field(default=None, repr=False, exclude=True)
    """Access token of the hub."""
    local_files_only: bool = False
    """Ask no server."""
    trust_remote_code: bool = False
    """Run model code that the checkpoint brings."""
    show_progress: bool = False
    """Show a progress bar while documents are encoded."""
    reuse_encodings: bool = True
    """Share recent encodings with the other adapters over the same model, so that a store that
    asks each of them for the same texts runs the network once."""
    encoder: Any = Field(default=None, repr=False, exclude=True)
    """An ``m3_core.Encoder`` that is loaded already; the options above then say nothing of it."""

    _encodings: Any = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        from m3_core.adapter import adapter_encodings

        self._encodings = adapter_encodings(
            self.encoder,
            self.model_name,
            {name: getattr(self, name) for name in self.model_fields_set},
            self._needed_parts(),
            reuse=self.reuse_encodings,
        )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the instructions that are in effect rather than those that were set."""
        for name, value in super().__repr_args__():
            if name not in _INSTRUCTIONS:
                yield name, value
        for name in _INSTRUCTIONS:
            yield name, getattr(self._model, name)

    def _needed_parts(self) -> tuple[str, ...]:
        return self.parts

    @property
    def _source(self) -> AdapterEncoder:
        source: AdapterEncoder = self._encodings
        return source

    @property
    def _model(self) -> Encoder:
        return self._source.encoder
