"""Retrievers over an in-process collection: lexical alone, and hybrid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import ConfigDict, Field, PrivateAttr
from typing_extensions import Self

from langchain_m3.options import EncoderFields

if TYPE_CHECKING:
    from m3_core.collection import DocumentCollection

MetadataFilter = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]


class _CollectionRetriever(EncoderFields, BaseRetriever):
    """What both retrievers have: documents, their encodings, and a search over them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    k: int = Field(default=4, ge=1)
    """Documents to return; ``invoke(query, k=...)`` overrides it."""
    filter: MetadataFilter | None = None
    """Only documents with these metadata values, or for whose metadata the function says yes;
    ``invoke(query, filter=...)`` overrides it."""

    _collection: Any = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Load the model and begin an empty collection."""
        super().model_post_init(context)
        from m3_core.collection import DocumentCollection

        self._collection = DocumentCollection(self._source)

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

    def __len__(self) -> int:
        return len(self._documents)

    def __bool__(self) -> bool:
        return True

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
    ) -> list[str]:
        """Encode texts and add them; those whose id is known replace what was there.

        Args:
            texts: The documents.
            metadatas: One mapping a document.
            ids: One a document; random ones where there is none.

        Returns:
            The ids.
        """
        return self._documents.add(texts, metadatas, ids, show_progress=self.show_progress)

    def add_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str] | None = None
    ) -> list[str]:
        """Encode documents and add them; those whose id is known replace what was there.

        Args:
            documents: The documents; those with an ``id`` keep it.
            ids: In place of the documents' own.

        Returns:
            The ids.

        Raises:
            TypeError: An element is no document.
            ValueError: An id comes twice.
        """
        listed = list(documents)
        for one in listed:
            if not isinstance(one, Document):
                raise TypeError(
                    f"documents must be LangChain documents; got {type(one).__name__}: for texts "
                    "there are from_texts and add_texts"
                )
        return self.add_texts(
            [document.page_content for document in listed],
            [document.metadata for document in listed],
            ids=[document.id for document in listed] if ids is None else ids,
        )

    async def aadd_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str] | None = None
    ) -> list[str]:
        """Do ``add_documents`` off the event loop.

        Args:
            documents: As there.
            ids: As there.

        Returns:
            The ids.
        """
        return await self._source.run_async(self.add_documents, documents, ids=ids)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Args:
            ids: Their ids; unknown ones are ignored.

        Returns:
            How many were there.
        """
        return self._documents.delete(ids)

    def save(self, path: str | PathLike[str]) -> None:
        """Write documents and encodings into a folder, which stays whole if this fails.

        Args:
            path: The folder; an older state in it is replaced once the new one is complete.

        Raises:
            TypeError: Metadata hold something that JSON does not have.
            OSError: Something could not be written; the older state is as it was.
        """
        self._documents.save(path)

    @classmethod
    def load(cls, path: str | PathLike[str], **options: Any) -> Self:
        """Read what ``save`` has written.

        Args:
            path: The folder.
            **options: Fields of the retriever; the model must be the one it was made with.

        Returns:
            The retriever.

        Raises:
            FileNotFoundError: There is no such folder.
            IndexFileError: The files are cut, damaged or something else, or the model or its
                options are others.
        """
        from m3_core.collection import DocumentCollection

        retriever = cls(**options)
        retriever._collection = DocumentCollection.load(path, retriever._source)
        return retriever

    @property
    def _documents(self) -> DocumentCollection:
        collection: DocumentCollection = self._collection
        return collection

    def _search_options(self) -> dict[str, Any]:
        return {}

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: MetadataFilter | None = None,
    ) -> list[Document]:
        found = self._documents.search(
            query,
            self.k if k is None else k,
            where=self.filter if filter is None else filter,
            **self._search_options(),
        )
        return [
            Document(
                id=one.id,
                page_content=one.text,
                metadata={**one.metadata, "score": one.score, "scores": one.scores},
            )
            for one in found
        ]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: MetadataFilter | None = None,
    ) -> list[Document]:
        return await self._source.run_async(self._get_relevant_documents, query, k=k, filter=filter)

    def _get_ls_params(self, **_kwargs: Any) -> LangSmithRetrieverParams:
        return LangSmithRetrieverParams(
            ls_retriever_name=type(self).__name__.removesuffix("Retriever").lower(),
            ls_embedding_provider=type(self).__module__.split(".")[0],
            ls_embedding_model=self._model.name,
        )


class M3SparseRetriever(_CollectionRetriever):
    """Retrieve by M3's lexical weights, exactly, in memory.

    The score is the sum over shared tokens of the products of their weights: not negative and
    not bounded. Documents that share no token with the query are not returned, so there may be
    fewer than ``k``. Returned documents are copies; ``metadata["score"]`` holds the score.

    Safe under threads: a search sees each change of the documents wholly or not at all.

    Example:
        .. code-block:: python

            retriever = M3SparseRetriever.from_texts(["Pandas eat bamboo.", "Bears eat fish."])
            documents = retriever.invoke("What do pandas eat?", k=1)
            retriever.save("index")
    """

    parts = ("sparse",)


class M3HybridRetriever(_CollectionRetriever):
    """Retrieve by dense vectors and lexical weights, then rerank with multi-vectors, in memory.

    Each text goes through the network once for all representations. The best ``fetch_k`` documents
    of the dense and of the lexical ranking are candidates; with ``rerank``, all of them are scored
    with their multi-vectors too. The rankings of the candidates are fused.

    With ``fusion="weights"``, ``metadata["score"]`` is the weighted mean of the scores, each
    computed exactly for every candidate: dense is a cosine (-1 to 1), the multi-vector score a mean
    of cosines. The lexical score is not negative, has no upper bound and the model's own scale: on
    XQuAD the best hit has a median of 1.3 to 2.3 with m3-tiny, depending on the language, and of
    0.54 to 0.58 with a checkpoint in M3's layout over multilingual-e5-small. With
    ``fusion="rrf"`` it is the sum of ``weight / (60 + rank)``, which says nothing about
    similarity. ``metadata["scores"]`` holds the scores that it was made of. Returned documents are
    copies.

    Multi-vectors are kept in float16: 2 KiB a token with M3's 1,024 dimensions.

    Example:
        .. code-block:: python

            retriever = M3HybridRetriever.from_texts(texts, k=10, rerank=True)
            documents = retriever.invoke("What do pandas eat?")
    """

    rerank: bool = False
    """Keep multi-vectors and rerank with them."""
    fusion: Literal["weights", "rrf"] = "weights"
    """Fuse by weighted scores, or by reciprocal rank."""
    weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    """Of dense, lexical and multi-vector scores; the default is that of the M3 paper."""
    fetch_k: int | None = Field(default=None, ge=1)
    """Candidates of each ranking; by default four times ``k`` and at least 100."""

    def _needed_parts(self) -> tuple[str, ...]:
        return ("dense", "sparse", "colbert") if self.rerank else ("dense", "sparse")

    def _search_options(self) -> dict[str, Any]:
        return {"fusion": self.fusion, "weights": self.weights, "fetch_k": self.fetch_k}
