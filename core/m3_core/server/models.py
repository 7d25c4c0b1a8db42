"""The models of a server: by name, loaded beside the event loop, tried before anyone asks."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from m3_core.beside import beside
from m3_core.encoder import PARTS, TextEncoder
from m3_core.errors import CheckpointError, UnsupportedModelError
from m3_core.server.failures import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from m3_core.rerankers import Reranker

    Model: TypeAlias = TextEncoder | Reranker
    Entry: TypeAlias = Model | Callable[[], Model]

_log = logging.getLogger("m3_core.server")

Kind = Literal["encoder", "reranker"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model under the name that clients ask for it by.

    Attributes:
        name: The name.
        kind: ``"encoder"`` or ``"reranker"``.
        model: The ``TextEncoder`` or ``Reranker``.
        created: When it was loaded, in seconds since 1970.
    """

    name: str
    kind: Kind
    model: Any
    created: int

    @property
    def parts(self) -> tuple[str, ...]:
        """What an encoder gives, of ``"dense"``, ``"sparse"`` and ``"colbert"`` in this order."""
        return tuple(part for part in PARTS if part in self.model.representations)


class Models:
    """All models of a server.

    Args:
        entries: Names, and for each a model or what loads it.

    Raises:
        ValueError: There is none.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        if not entries:
            raise ValueError("a server needs at least one model")
        self._entries = dict(entries)
        self._served: dict[str, Served] = {}
        self.state: Literal["loading", "ready", "failed", "stopping"] = "loading"
        self.failure: Exception | None = None

    async def load(self) -> None:
        """Load what is not loaded, one after the other, and run a batch with each.

        Raises:
            Exception: What loading raises; the state says so too.
        """
        try:
            for name, entry in self._entries.items():
                model: Any = entry if _kind(entry) else await beside(entry)  # type: ignore[arg-type]  # a callable
                kind = _kind(model)
                if kind is None:
                    raise TypeError(
                        f"model {name!r} must be an encoder or a reranker, or a function that "
                        f"loads one; got {type(model).__name__}"
                    )
                served = Served(name, kind, model, int(time.time()))
                await _try(served)
                self._served[name] = served
                _log.info("model ready", extra={"model": name, "kind": kind})
        except Exception as error:
            self.state, self.failure = "failed", error
            raise
        if self.state == "loading":
            self.state = "ready"

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def check_ready(self) -> None:
        """Let only pass what can be answered.

        Raises:
            RequestError: The models are being loaded, could not be, or the server stops.
        """
        if self.state == "ready":
            return
        after = 5 if self.state == "loading" else None
        raise RequestError(
            503, f"the server is not ready: {self.state}", "not_ready", retry_after=after
        )

    def encoder(self, name: str | None = None) -> Served:
        """Find an encoder.

        Args:
            name: Its name; the first one's if ``None``.

        Returns:
            The encoder.

        Raises:
            RequestError: There is none of that name.
        """
        return self._find(name, ("encoder",))

    def scorer(self, name: str | None = None) -> Served:
        """Find a model that scores pairs: the first reranker, or encoder, where no name is given.

        Args:
            name: Its name.

        Returns:
            A reranker, or an encoder.

        Raises:
            RequestError: There is none of that name.
        """
        return self._find(name, ("reranker", "encoder"))

    def _find(self, name: str | None, kinds: tuple[Kind, ...]) -> Served:
        fitting = [one for kind in kinds for one in self._served.values() if one.kind == kind]
        found = next((one for one in fitting if name in (None, one.name)), None)
        if found is None:
            known = ", ".join(repr(one.name) for one in fitting) or "none"
            raise RequestError(
                404,
                f"there is no {' or '.join(reversed(kinds))} of that name here; there are: {known}",
                "model_not_found",
            )
        return found


def _kind(model: Any) -> Kind | None:
    if isinstance(model, TextEncoder):
        return "encoder"
    return "reranker" if hasattr(model, "acompute_score") else None


async def _try(served: Served) -> None:
    """Run a batch: kernels are chosen and memory is taken before a client waits."""
    if served.kind == "reranker":
        await served.model.acompute_score([("query", "document")])
        return
    flags = {f"return_{part}": part in served.parts for part in ("dense", "sparse")}
    flags["return_colbert_vecs"] = "colbert" in served.parts
    await served.model.aencode_queries(["query"], **flags)
    await served.model.aencode_documents(["document"], **flags)


def load_model(name: str, **options: Any) -> Model:
    """Load an encoder or a reranker, whichever the checkpoint holds, once for the process.

    Args:
        name: An embedded model, a folder or a hub repository.
        **options: Those of ``Encoder.from_pretrained`` or ``Reranker.from_pretrained``.

    Returns:
        The model.

    Raises:
        M3Error: It cannot be loaded.
    """
    from m3_core.encoder import shared_encoder
    from m3_core.rerankers import Reranker, reranker_kind_at

    where = ("revision", "cache_folder", "token", "local_files_only")
    try:
        reranker_kind_at(name, **{key: options[key] for key in where if key in options})
    except UnsupportedModelError:
        return shared_encoder(name, **options)
    try:
        return Reranker.shared(name, **options)
    except CheckpointError as error:
        # Decoders that encode have the architecture of those that rerank.
        try:
            return shared_encoder(name, **options)
        except CheckpointError:
            raise error from None


def model_entries(names: Iterable[str], **options: Any) -> dict[str, Callable[[], Model]]:
    """Say what a server shall load, and how clients call it.

    Args:
        names: Embedded models, folders or hub repositories; ``NAME=MODEL`` gives one another name.
        **options: As of ``load_model``.

    Returns:
        For ``create_app``: what loads each, by name. A folder is called as its last component.

    Raises:
        ValueError: Two have the same name.
    """
    entries: dict[str, Callable[[], Model]] = {}
    for entry in names:
        alias, equals, model = entry.partition("=")
        # A folder's name may hold the sign.
        if not equals or Path(entry).exists():
            model = entry
            alias = Path(entry).resolve().name if Path(entry).is_dir() else entry
        if not alias or not model:
            raise ValueError(f"model {entry!r} must be MODEL or NAME=MODEL")
        if alias in entries:
            raise ValueError(f"two models are called {alias!r}: name one of them NAME={model}")
        entries[alias] = _Loading(model, options)
    return entries


@dataclass(frozen=True, slots=True)
class _Loading:
    model: str
    options: Mapping[str, Any]

    def __call__(self) -> Model:
        return load_model(self.model, **self.options)
