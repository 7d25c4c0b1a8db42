"""Retrievers over an in-process collection: lexical alone, and hybrid."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from pydantic import Field, field_validator
from typing_extensions import Self

from langchain_m3.documents import CollectionFields
from m3_core.beside import beside
from m3_core.scoring import normalized_weights


class HybridFields(CollectionFields):
    """The options of hybrid search besides."""

    rerank: bool = False
    """Keep multi-vectors and rerank with them."""
    fusion: Literal["weights", "rrf"] = "weights"
    """Fuse by weighted scores, or by reciprocal rank."""
    weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    """Of dense, lexical and multi-vector scores; the default is that of the M3 paper. Multi-vectors
    are not scored without ``rerank``, nor with a weight of 0."""
    fetch_k: int | None = Field(default=None, ge=1)
    """Candidates of each ranking; by default four times ``k`` and at least 100."""

    @field_validator("weights", mode="before")
    @classmethod
    def _check_weights(cls, weights: Any) -> Any:
        normalized_weights(weights)
        return weights

    def model_post_init(self, context: Any) -> None:
        """Load the model, and refuse weights that leave nothing to score by."""
        super().model_post_init(context)
        self._check_use_of_weights()

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        self._check_use_of_weights()

    def _check_use_of_weights(self) -> None:
        if not self.rerank and not any(self.weights[:2]):
            raise ValueError(
                f"weights {self.weights} leave nothing to score by: multi-vectors are kept and "
                "scored with rerank=True alone"
            )

    def _own_parts(self) -> tuple[str, ...]:
        return ("dense", "sparse", "colbert") if self.rerank else ("dense", "sparse")

    def _search_options(self) -> dict[str, Any]:
        weights = self.weights if self.rerank else (*self.weights[:2], 0.0)
        return {"fusion": self.fusion, "weights": weights, "fetch_k": self.fetch_k}


class _CollectionRetriever(CollectionFields):
    """What both retrievers have besides: how they are made of documents and how these go."""

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> Self:
        """Make a retriever of texts.

        Args:
            texts: The documents.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.
            **options: Fields of the retriever.

        Returns:
            The retriever.
        """
        retriever = cls(**options)
        retriever.add_texts(texts, metadatas, ids=ids)
        return retriever

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], *, ids: Sequence[str] | None = None, **options: Any
    ) -> Self:
        """Make a retriever of documents.

        Args:
            documents: The documents; those with an ``id`` keep it.
            ids: In place of the documents' own.
            **options: Fields of the retriever.

        Returns:
            The retriever.
        """
        retriever = cls(**options)
        retriever.add_documents(documents, ids=ids)
        return retriever

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **options: Any,
    ) -> Self:
        """Make a retriever of texts, as ``from_texts``; the model is loaded on the event loop."""
        retriever = cls(**options)
        await retriever.aadd_texts(texts, metadatas, ids=ids)
        return retriever

    @classmethod
    async def afrom_documents(
        cls, documents: Iterable[Document], *, ids: Sequence[str] | None = None, **options: Any
    ) -> Self:
        """Make a retriever of documents, as ``from_documents``, which blocks only while loading."""
        retriever = cls(**options)
        await retriever.aadd_documents(documents, ids=ids)
        return retriever

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.
        """
        return self._documents.delete(ids)

    async def adelete(self, ids: Iterable[str]) -> int:
        """Do ``delete`` without holding up the event loop."""
        return await beside(self.delete, ids)


class M3SparseRetriever(_CollectionRetriever):
    """Retrieve by M3's lexical weights, exactly, in memory.

    The score is the sum over shared tokens of the products of their weights: not negative and
    not bounded. Documents that share no token with the query are not returned, so there may be
    fewer than ``k``. Returned documents are copies of those that were put in;
    ``search_with_scores`` says the scores too.

    Safe under threads: a search sees each change of the documents wholly or not at all.

    Example:
        .. code-block:: python

            retriever = M3SparseRetriever.from_texts(["Pandas eat bamboo.", "Bears eat fish."])
            documents = retriever.invoke("What do pandas eat?", k=1)
            retriever.save("index")
    """

    parts = ("sparse",)

    def _search_options(self) -> dict[str, Any]:
        # The documents may be shared with retrievers that need more of them.
        return {"weights": (0.0, 1.0, 0.0), "exhaustive": True}


class M3HybridRetriever(HybridFields, _CollectionRetriever):
    """Retrieve by dense vectors and lexical weights, then rerank with multi-vectors, in memory.

    Each text goes through the network once for all representations. The best ``fetch_k`` documents
    of the dense and of the lexical ranking are candidates; with ``rerank``, all of them are scored
    with their multi-vectors too. The rankings of the candidates are fused.

    Documents come back as they were put in, as copies; ``search_with_scores`` says the scores too.
    With ``fusion="weights"`` the score is the weighted mean of the scores, each computed exactly
    for every candidate: dense is a cosine (-1 to 1), the multi-vector score a mean of cosines. The
    lexical score is not negative, has no upper bound and the model's own scale: on XQuAD the
    right paragraph has 0.4 to 0.6 on average with m3-small, depending on the language. With
    ``fusion="rrf"`` it is the sum of ``weight / (60 + rank)``, the weights scaled to the sum 1,
    which says nothing about similarity.

    Multi-vectors are kept in float16: 2 KiB a token with M3's 1,024 dimensions.

    Example:
        .. code-block:: python

            retriever = M3HybridRetriever.from_texts(texts, k=10, rerank=True)
            documents = retriever.invoke("What do pandas eat?")
    """
