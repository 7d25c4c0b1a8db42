"""Clients of Qdrant: embedded or remote, synchronous or not, one collection."""

from __future__ import annotations

import contextlib
import threading
from inspect import signature
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from grpc import RpcError
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import ApiException

from m3_core.beside import beside
from m3_core.errors import StoreError
from m3_core.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from m3_core.stores.qdrant.layout import Layout

# What clients raise where a collection exists: over HTTP, over gRPC, embedded.
_EXISTS = (ApiException, RpcError, ValueError)
_PLACES = {"location", "path", "url", "host"}


class Connection:
    """Calls to Qdrant about one collection, which is made or checked before the first.

    Args:
        collection: The collection's name.
        layout: Its vectors.
        where: Arguments of ``QdrantClient`` that were given.
        client: In place of them.
        async_client: For asynchronous calls.
        must_exist: Never make the collection.
        force_recreate: Delete a collection that is there, and make it anew.
        create_options: Further arguments of ``create_collection``.

    Raises:
        StoreError: The collection exists and holds other vectors, or must exist and does not; or
            something else than Qdrant answers.
        ValueError: More than one place is named.
    """

    def __init__(
        self,
        collection: str,
        layout: Layout,
        where: dict[str, Any],
        client: QdrantClient | None,
        async_client: AsyncQdrantClient | None,
        *,
        must_exist: bool = False,
        force_recreate: bool = False,
        create_options: dict[str, Any] | None = None,
    ) -> None:
        places = [*(where.keys() & _PLACES)] if client is None else ["client", *where]
        if len(places) > 1:
            raise ValueError(f"name one place of the collection; got {', '.join(sorted(places))}")
        self.collection = collection
        self.layout = layout
        self.async_client = async_client
        self._must_exist = must_exist
        self._recreate = force_recreate
        self._create_options = create_options or {}
        self.owned = client is None and (async_client is None or bool(where))
        self.client = _connect(where) if self.owned else client
        # Embedded Qdrant is not made for several threads.
        self._is_embedded = self.owned and not where.keys() & {"url", "host"}
        self.after_fork()
        survive_forks(self)
        self._ready = False
        if self.client is not None:
            try:
                with _understood():
                    self._prepare(self.client)
            except BaseException:
                self.close()
                raise

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock: Any = threading.RLock() if self._is_embedded else contextlib.nullcontext()

    def call(self, method: str, **arguments: Any) -> Any:
        """Call the synchronous client.

        Args:
            method: The client's method.
            **arguments: Its keywords, without the collection's name.

        Returns:
            What the client returns.

        Raises:
            ValueError: There is only an asynchronous client.
        """
        if self.client is None:
            raise ValueError(
                "this store has only an async_client: use the asynchronous methods, or pass client="
            )
        with self._lock, _understood():
            return getattr(self.client, method)(collection_name=self.collection, **arguments)

    async def acall(self, method: str, **arguments: Any) -> Any:
        """Call the asynchronous client, else the synchronous one off the event loop.

        Args:
            method: The client's method.
            **arguments: Its keywords, without the collection's name.

        Returns:
            What the client returns.
        """
        if self.async_client is None:
            return await beside(self.call, method, **arguments)
        with _understood():
            await self._aprepare(self.async_client)
        with _understood():
            return await getattr(self.async_client, method)(
                collection_name=self.collection, **arguments
            )

    def close(self) -> None:
        """Close the client, unless it was given."""
        if self.owned and self.client is not None:
            self.client.close()

    def _prepare(self, client: QdrantClient) -> None:
        exists = client.collection_exists(self.collection)
        if exists and self._recreate:
            client.delete_collection(self.collection)
            exists = False
        if not exists:
            self._check_making()
            try:
                client.create_collection(**self._schema())
            except _EXISTS:
                # Another process may have made it in between.
                if not client.collection_exists(self.collection):
                    raise
        self.layout.check(self.collection, client.get_collection(self.collection).config.params)
        self._ready = True

    async def _aprepare(self, client: AsyncQdrantClient) -> None:
        if self._ready:
            return
        exists = await client.collection_exists(self.collection)
        if exists and self._recreate:
            await client.delete_collection(self.collection)
            exists = False
        if not exists:
            self._check_making()
            try:
                await client.create_collection(**self._schema())
            except _EXISTS:
                if not await client.collection_exists(self.collection):
                    raise
        found = await client.get_collection(self.collection)
        self.layout.check(self.collection, found.config.params)
        self._ready = True

    def _check_making(self) -> None:
        self._recreate = False
        if self._must_exist:
            raise StoreError(
                f"there is no collection {self.collection!r}: make it by from_texts, or open one "
                "that exists"
            )

    def _schema(self) -> dict[str, Any]:
        return self._create_options | {
            "collection_name": self.collection,
            "vectors_config": self.layout.vectors(),
            "sparse_vectors_config": self.layout.sparse_vectors(),
        }


def remembers() -> bool:
    """Say whether a collection can hold metadata of its own: clients do from 1.16 on."""
    return "metadata" in signature(QdrantClient.create_collection).parameters


@contextlib.contextmanager
def refusals_told(where: Mapping[str, Any]) -> Iterator[None]:
    """Say in one sentence that Qdrant's server does not do what is asked of it.

    Args:
        where: Arguments of ``QdrantClient``.

    Yields:
        Nothing.

    Raises:
        StoreError: The server cannot be reached or refuses.
    """
    try:
        yield
    except ApiException as error:
        place = where.get("url") or where.get("host") or "its server"
        raise StoreError(
            f"Qdrant at {place} cannot be reached or refuses: {error}; what is loaded stays, and "
            "the same again loads everything"
        ) from error


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Say so where something else than Qdrant answers, as a proxy does with a page of its own."""
    try:
        yield
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(
            f"what answers there is not Qdrant, or a proxy before it has failed: its answer is no "
            f"JSON ({error}). Check url, port and prefix"
        ) from error


def _connect(where: dict[str, Any]) -> QdrantClient:
    if "path" in where:
        # The connection's lock keeps threads apart.
        return QdrantClient(force_disable_check_same_thread=True, **where)
    return QdrantClient(**(where if where.keys() & _PLACES else {"location": ":memory:"} | where))
