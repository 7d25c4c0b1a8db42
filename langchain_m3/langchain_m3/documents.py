"""Documents of an in-process collection: what its retrievers and its store have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from langchain_m3.options import EncoderFields
from m3_core.adapters import Explaining, explained_search
from m3_core.beside import beside
from m3_core.filters import Filter, parse_filter

if TYPE_CHECKING:
    from m3_core.collection import DocumentCollection, Hit
    from m3_core.encoder import TextEncoder

ScoredDocument = tuple[Document, float, dict[str, float]]


class DocumentExplaining(Explaining):
    """``explain`` of LangChain's documents."""

    @staticmethod
    def _told(document: Document | str) -> str:
        if isinstance(document, str):
            return document
        if not isinstance(document, Document):
            raise TypeError(
                f"a Document or a text can be explained; got {type(document).__name__}: of "
                "(document, score) pass the document"
            )
        return document.page_content


class CollectionFields(DocumentExplaining, EncoderFields, BaseRetriever):
    """Documents, their encodings, and a search over them."""

    roles = ("query",)

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    k: int = Field(default=4, ge=1)
    """Documents to return; ``invoke(query, k=...)`` overrides it."""
    filter: Filter | None = None
    """Only documents with such metadata, in the language of ``m3_core.filters``, as
    ``{"language": "de", "year": {"$gte": 2020}}``, or for whose metadata the function says yes;
    ``invoke(query, filter=...)`` overrides it."""
    score_key: str | None = None
    """Key under which ``invoke`` puts a document's score into its metadata, in place of what may
    be there; by default nowhere: documents come back as they were put in."""
    trace_explanations: bool = False
    """While a span of OpenTelemetry is recording, put explanations of what ``invoke`` finds into
    a child span ``"m3.explain"``, named as OpenInference names them. It encodes what was found."""
    collection: Any = Field(default=None, exclude=True, repr=False)
    """Documents to share with others over the same model: their ``collection``. By default an
    empty one."""

    @model_validator(mode="before")
    @classmethod
    def _with_model_of_collection(cls, values: Any) -> Any:
        given = values.get("collection") if isinstance(values, dict) else None
        if given is None or {"encoder", "model_name", "base_url"} & values.keys():
            return values
        return {**values, "encoder": _checked_collection(given).encodings.encoder}

    @field_validator("filter")
    @classmethod
    def _check_filter(cls, where: Filter | None) -> Filter | None:
        parse_filter(where)
        return where

    def model_post_init(self, context: Any) -> None:
        """Load the model and begin an empty collection, or share the one that was given."""
        super().model_post_init(context)
        from m3_core.collection import DocumentCollection

        given = self.collection
        self._keep(DocumentCollection(self._source) if given is None else given.over(self._source))

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
        **kwargs: Any,
    ) -> list[str]:
        """Encode texts and add them; those whose id is known replace what was there.

        Args:
            texts: The documents.
            metadatas: One mapping a document, which is copied.
            ids: One a document; random ones where there is none.
            **kwargs: ``batch_size`` is taken, as LangChain's indexing passes it, and changes
                nothing: batches are made of tokens here.

        Returns:
            The ids.

        Raises:
            TypeError: There is no such argument, or a text or an id is no string.
            ValueError: The lengths differ, or an id comes twice.
        """
        _refuse_unknown(kwargs)
        return self._documents.add(texts, metadatas, ids, show_progress=self.show_progress)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do ``add_texts`` without holding up the event loop."""
        _refuse_unknown(kwargs)
        return await self._documents.aadd(texts, metadatas, ids, show_progress=self.show_progress)

    def add_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str] | None = None, **kwargs: Any
    ) -> list[str]:
        """Encode documents and add them; those whose id is known replace what was there.

        Args:
            documents: The documents; those with an ``id`` keep it.
            ids: In place of the documents' own.
            **kwargs: As of ``add_texts``.

        Returns:
            The ids.

        Raises:
            TypeError: An element is no document.
            ValueError: An id comes twice.
        """
        texts, metadatas, own = _columns(documents)
        return self.add_texts(texts, metadatas, ids=own if ids is None else ids, **kwargs)

    async def aadd_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str] | None = None, **kwargs: Any
    ) -> list[str]:
        """Do ``add_documents`` without holding up the event loop."""
        texts, metadatas, own = _columns(documents)
        return await self.aadd_texts(texts, metadatas, ids=own if ids is None else ids, **kwargs)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Get documents.

        Args:
            ids: Their ids.

        Returns:
            Copies of those that there are, in the order of the ids.
        """
        return [
            Document(id=one, page_content=text, metadata=metadata)
            for one, text, metadata in self._documents.get(ids)
        ]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Do ``get_by_ids`` without holding up the event loop."""
        return await beside(self.get_by_ids, ids)

    def search_with_scores(
        self, query: str, k: int | None = None, *, filter: Filter | None = None
    ) -> list[ScoredDocument]:
        """Search, and say the scores.

        Args:
            query: The query.
            k: Documents to return; by default the field.
            filter: As the field, in its place.

        Returns:
            Copies of the documents, each with its score and with the scores that this was made of
            by ``"dense"``, ``"sparse"`` and ``"colbert"``, best first. What has no weight may be
            absent, and with ``fusion="rrf"`` what is outside of a ranking's candidates.
        """
        return _scored(self._found(query, k, filter))

    async def asearch_with_scores(
        self, query: str, k: int | None = None, *, filter: Filter | None = None
    ) -> list[ScoredDocument]:
        """Do ``search_with_scores`` without holding up the event loop."""
        return _scored(await self._afound(query, k, filter))

    def save(self, path: str | PathLike[str]) -> None:
        """Write documents and encodings into one file, whole or not at all.

        Any number of threads and processes may save to one name: the last one to finish wins.

        Args:
            path: The file; an older one is replaced once the new one is complete.

        Raises:
            TypeError: Metadata hold something that JSON does not have, or would change.
            OSError: Something could not be written; the older file is as it was.
        """
        self._documents.save(path)

    @classmethod
    def load(cls, path: str | PathLike[str], **options: Any) -> Self:
        """Read what ``save`` has written.

        Args:
            path: The file.
            **options: As of the class; the model must be the one it was made with.

        Returns:
            An object with those documents.

        Raises:
            FileNotFoundError: There is no such file.
            IndexFileError: It is cut, damaged or something else, or the model or its options are
                others.
        """
        from m3_core.collection import DocumentCollection

        made = cls(**options)
        made._keep(DocumentCollection.load(path, made._source))
        return made

    @property
    def _documents(self) -> DocumentCollection:
        collection: DocumentCollection = self.collection
        if collection.encodings is not self._source:
            collection = collection.over(self._source)
            self._keep(collection)
        return collection

    def _keep(self, documents: DocumentCollection) -> None:
        # A field, so that whoever makes another object of the fields hands the documents on.
        self.__dict__["collection"] = documents

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        if self.collection is None:
            from m3_core.collection import DocumentCollection

            self._keep(DocumentCollection(self._source))
        if self._documents.encodings is not self._source:
            self._keep(self._documents.over(self._source))

    def _needed_parts(self) -> tuple[str, ...]:
        own = self._own_parts()
        if self.collection is None:
            return own
        stored = _checked_collection(self.collection).parts
        absent = [part for part in own if part not in stored]
        if absent:
            raise ValueError(
                f"{type(self).__name__} needs {', '.join(absent)} of its documents, and the "
                f"collection holds {', '.join(stored)}: make it with these, or ask for less"
            )
        # All of them, since what is added must have them too.
        return stored

    def _own_parts(self) -> tuple[str, ...]:
        """What the search itself needs."""
        return self.parts

    def _search_options(self) -> dict[str, Any]:
        return {}

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        return self._source, explained_search(self._own_parts(), self._search_options())

    def _found(self, query: str, k: int | None, where: Filter | None, **options: Any) -> list[Hit]:
        return self._documents.search(query, **self._asked(k, where, options))

    async def _afound(
        self, query: str, k: int | None, where: Filter | None, **options: Any
    ) -> list[Hit]:
        return await self._documents.asearch(query, **self._asked(k, where, options))

    def _asked(
        self, k: int | None, where: Filter | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        return dict(
            k=self.k if k is None else k,
            where=self.filter if where is None else where,
            **{**self._search_options(), **options},
        )

    def _returned(self, found: list[Hit]) -> list[Document]:
        documents = [document(one) for one in found]
        if self.score_key is not None:
            for made, one in zip(documents, found, strict=True):
                made.metadata[self.score_key] = one.score
        return documents

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        **unknown: Any,
    ) -> list[Document]:
        refuse_keywords("invoke", unknown, ("k", "filter"))
        found = self._returned(self._found(query, k, filter))
        if self.trace_explanations:
            self._show_in_trace(query, found, [str(one.id) for one in found])
        return found

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        **unknown: Any,
    ) -> list[Document]:
        refuse_keywords("ainvoke", unknown, ("k", "filter"))
        found = self._returned(await self._afound(query, k, filter))
        if self.trace_explanations:
            await self._ashow_in_trace(query, found, [str(one.id) for one in found])
        return found

    def _sync_keywords(self, keywords: dict[str, Any]) -> dict[str, Any]:
        # For subclasses that replace _get_relevant_documents alone.
        run_manager = keywords.get("run_manager")
        if isinstance(run_manager, AsyncCallbackManagerForRetrieverRun):
            return {**keywords, "run_manager": run_manager.get_sync()}
        return keywords

    def _get_ls_params(self, **_kwargs: Any) -> LangSmithRetrieverParams:
        return LangSmithRetrieverParams(
            ls_retriever_name=type(self).__name__.removesuffix("Retriever").lower(),
            ls_embedding_provider=type(self).__module__.split(".")[0],
            ls_embedding_model=self._model.name,
        )


def refuse_keywords(call: str, unknown: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse keywords of a call.

    Args:
        call: Its name.
        unknown: Keywords that nobody takes.
        known: Those that there are.

    Raises:
        TypeError: There is one.
    """
    if unknown:
        raise TypeError(
            f"{call} takes {', '.join(f'{name}=' for name in known)}; got "
            f"{', '.join(f'{name}=' for name in sorted(unknown))}"
        )


def check_retriever_keywords(keywords: Mapping[str, Any]) -> None:
    """Refuse keywords of ``as_retriever`` that LangChain would pass over in silence.

    Args:
        keywords: The keywords.

    Raises:
        TypeError: One is no field of a store's retriever.
    """
    unknown = sorted(keywords.keys() - VectorStoreRetriever.model_fields.keys())
    if unknown:
        raise TypeError(
            "as_retriever takes search_type= and search_kwargs=, which holds what a search takes, "
            f"as {{'k': 2}}; got {', '.join(f'{name}=' for name in unknown)}"
        )


def document(found: Hit) -> Document:
    """A found document, as it was put in.

    Args:
        found: What the collection found.

    Returns:
        The document.
    """
    return Document(id=found.id, page_content=found.text, metadata=found.metadata)


def _scored(found: Iterable[Hit]) -> list[ScoredDocument]:
    return [(document(one), one.score, one.scores) for one in found]


def _columns(
    documents: Iterable[Document],
) -> tuple[list[str], list[dict[str, Any]], list[str | None]]:
    """Texts, metadata and ids."""
    if isinstance(documents, (str, Document)) or not isinstance(documents, Iterable):
        raise TypeError(f"documents must be in a list; got {type(documents).__name__}")
    listed = list(documents)
    for one in listed:
        if not isinstance(one, Document):
            raise TypeError(
                f"documents must be LangChain documents; got {type(one).__name__}: for texts "
                "there are from_texts and add_texts"
            )
    return (
        [document.page_content for document in listed],
        [document.metadata for document in listed],
        [document.id for document in listed],
    )


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    unknown = sorted(arguments.keys() - {"batch_size"})
    if unknown:
        raise TypeError(f"there is no argument {', '.join(unknown)} for adding documents")


def _checked_collection(given: Any) -> DocumentCollection:
    from m3_core.collection import DocumentCollection

    if not isinstance(given, DocumentCollection):
        raise TypeError(
            "collection must be the collection of another retriever or store; got "
            f"{type(given).__name__}"
        )
    return given
