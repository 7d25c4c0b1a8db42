"""Dense vectors of M3 and the BGE family as LangChain's ``Embeddings``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from m3_core import Encoder


class M3Embeddings(BaseModel, Embeddings):
    """Embed queries and documents with a BGE encoder.

    The model is loaded once a process for all objects with the same options. Safe under threads;
    the asynchronous methods compute off the event loop.

    Example:
        .. code-block:: python

            embeddings = M3Embeddings(model_name="BAAI/bge-m3")
            vectors = embeddings.embed_documents(["Pandas eat bamboo."])
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

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
    truncate_dim: int | None = None
    """Keep so many leading values of each vector (Matryoshka)."""
    normalize: bool = True
    """Scale vectors to length 1."""
    cache_folder: str | None = None
    """Where downloads are kept."""
    token: str | None = Field(default=None, repr=False, exclude=True)
    """Access token of the hub."""
    local_files_only: bool = False
    """Ask no server."""
    trust_remote_code: bool = False
    """Run model code that the checkpoint brings."""
    show_progress: bool = False
    """Show a progress bar while documents are embedded."""
    encoder: Any = Field(default=None, repr=False, exclude=True)
    """An ``m3_core.Encoder`` that is loaded already; the options above then say nothing of it."""

    _encoder: Any = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Load the model, or take the one that was given."""
        from m3_core.registry import adapter_encoder

        self._encoder = adapter_encoder(
            self.encoder,
            self.model_name,
            {name: getattr(self, name) for name in self.model_fields_set},
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        return self._encode_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, with the query instruction before it.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        return self._model.encode_queries([text]).dense_lists()[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents off the event loop.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        return await self._model.run_async(self._encode_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query off the event loop.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        return (await self._model.aencode_queries([text])).dense_lists()[0]

    @property
    def _model(self) -> Encoder:
        encoder: Encoder = self._encoder
        return encoder

    def _encode_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.encode_documents(texts, show_progress=self.show_progress).dense_lists()
