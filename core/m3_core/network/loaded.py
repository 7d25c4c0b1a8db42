"""One loaded checkpoint for all encoders and rerankers over it."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch

from m3_core.errors import ClosedError
from m3_core.forks import aside, computed_once, survive_forks
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.device import has_amx, resolve_device, resolve_dtype
from m3_core.network.engine import Engine, Program
from m3_core.network.fingerprint import checkpoint_fingerprint
from m3_core.network.tokens import Tokenizer, TokenPiece
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from m3_core.network.batches import Work
    from m3_core.network.checkpoint import Checkpoint
    from m3_core.network.source import Source
    from m3_core.network.ticket import EngineStats

_log = logging.getLogger("m3_core")

U = TypeVar("U", bound="ModelUser")


class Network(Program, Protocol):
    """A network that the engine runs.

    Attributes:
        dtype: In what data type it computes.
    """

    dtype: torch.dtype

    def default_token_budget(self) -> int:
        """Tokens a batch at which the device is well used.

        Returns:
            As of ``device.default_token_budget``.
        """


# So many characters are tokenised in about a millisecond; more would hold up an event loop.
CHARACTERS_ON_THE_LOOP = 10_000


class LoadedModel:
    """A loaded checkpoint: its tokenizer, its network, and the engine that runs it.

    Args:
        checkpoint: What its small files say.
        tokenizer: Its tokenizer.
        network: Its network.
        source: How it is loaded again.
        build: What made the network.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        network: Network,
        source: Source,
        build: Callable[..., Network],
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.source = source
        self.build = build
        self.device = network.device
        self.dtype = network.dtype
        self._network: Network | None = network
        budget = source.token_budget or network.default_token_budget()
        self._engine: Engine | None = Engine(network, budget, checkpoint.name)

    @classmethod
    def load(cls, source: Source, build: Callable[..., Network]) -> LoadedModel:
        """Load a checkpoint.

        Args:
            source: Where it is, and how it shall run.
            build: Makes its network of checkpoint, tokenizer, device, data type and source.

        Returns:
            The model.

        Raises:
            CheckpointError: The files are absent, unreadable, incomplete or of another model.
            DeviceError: The device is absent or cannot compute in the data type.
        """
        began = time.perf_counter()
        device = resolve_device(source.device)
        dtype = resolve_dtype(source.dtype, device)
        checkpoint = read_checkpoint(source.locate(), str(source.name))
        vocabulary = checkpoint.config.get("vocab_size")
        tokenizer = Tokenizer.from_folder(checkpoint.folder, vocabulary)
        network = aside(lambda: build(checkpoint, tokenizer, device, dtype, source))
        if dtype == torch.int8 and has_amx():
            _log.warning(
                "%s: on this CPU, which has AMX, batches take longer in int8 than with "
                "dtype='auto', which is bfloat16 here; int8 needs half its memory",
                checkpoint.name,
            )
        _log.info(
            "loaded %s on %s in %s within %.1f s",
            checkpoint.name,
            device,
            str(dtype).removeprefix("torch."),
            time.perf_counter() - began,
        )
        return cls(checkpoint, tokenizer, network, source, build)

    @property
    def network(self) -> Network:
        """The network.

        Raises:
            ClosedError: The model was closed.
        """
        network = self._network
        if network is None:
            raise self._closed_error()
        return network

    @property
    def engine(self) -> Engine:
        """What runs the network.

        Raises:
            ClosedError: The model was closed.
        """
        engine = self._engine
        if engine is None:
            raise self._closed_error()
        return engine

    @property
    def closed(self) -> bool:
        """Whether the network is gone."""
        return self._network is None

    @computed_once
    def fingerprint(self) -> str:
        """Name the files that change what the network gives; equal in every process.

        Half types give the same up to rounding, int8 does not.
        """
        files = checkpoint_fingerprint(self.checkpoint.folder)
        return f"{files}-int8" if self.dtype == torch.int8 else files

    def check_length(self, max_length: int, least: int = 3) -> int:
        """Return a length in tokens if the model takes it.

        Args:
            max_length: Special tokens included.
            least: What is needed for any text.

        Returns:
            The same.

        Raises:
            ValueError: It is too short for any text or longer than the model's positions.
        """
        positions = self.checkpoint.positions
        if not least <= max_length <= positions:
            allowed = f"from {least} to {positions}" if least else f"up to {positions}"
            raise ValueError(
                f"max_length is {max_length}; {self.checkpoint.name!r} takes {allowed} tokens"
            )
        return max_length

    def close(self) -> None:
        """Let go of the network and its memory; callers that wait for it get ``ClosedError``."""
        engine, self._network, self._engine = self._engine, None, None
        if engine is None:
            return
        engine.close(self._closed_error())
        del engine
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the model {self.checkpoint.name!r} was closed: load it again")


class ModelUser:
    """What encoders and rerankers are: options over a loaded model.

    Copies are the object itself. Pickled, it holds no weights: the other process loads them once
    for all that arrive there.

    Args:
        model: The loaded checkpoint.
        options: What changes results without changing the weights.
        source: By which name it was asked for; the model's own if ``None``.
    """

    _elsewhere: ClassVar[Mapping[str, str]] = {}
    """Names of other packages' classes, and what to say about them."""

    def __init__(self, model: LoadedModel, options: Any, source: Source | None = None) -> None:
        self.model = model
        self.options = options
        self.source = source or model.source

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse attributes that nothing would read."""
        kept = getattr(type(self), name, None)
        if name not in ("model", "options", "source") and not callable(kept):
            raise AttributeError(
                f"{name} of {type(self).__name__} cannot be assigned"
                f"{self._elsewhere.get(name, '')}: options of a loaded model are given to another "
                "object over it, with_options(max_length=..., query_instruction=...)",
                name=name,
                obj=self,
            )
        super().__setattr__(name, value)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Answer names of other packages' classes."""
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}{self._elsewhere.get(name, '')}",
                name=name,
                obj=self,
            )

    @property
    def name(self) -> str:
        """The name that the model was asked for by."""
        return str(self.source.name)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """In what data type the network computes."""
        return self.model.dtype

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self.model.closed

    def close(self) -> None:
        """Let go of the network and its memory; further calls raise ``ClosedError``."""
        self.model.close()

    def token_pieces(
        self, texts: Iterable[str], *, special_tokens: bool = True
    ) -> list[list[TokenPiece]]:
        """Show the tokens that the model sees of texts, without cutting them.

        Args:
            texts: The texts; no instruction is put before them.
            special_tokens: With those that stand around each.

        Returns:
            For each text its tokens, with their places in it.
        """
        return [
            self.model.tokenizer.pieces(text, special_tokens=special_tokens)
            for text in check_texts(texts)
        ]

    def stats(self) -> EngineStats:
        """What the engine of the model has done so far, for all who share it.

        Returns:
            Numbers of requests, texts, tokens and batches, and how long requests waited.
        """
        return self.model.engine.stats()

    def __enter__(self: U) -> U:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self: U) -> U:
        return self

    def __deepcopy__(self: U, _: dict[int, Any]) -> U:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (type(self), self.source, self.model.build, self.options)


def _reload(kind: type[U], source: Source, build: Callable[..., Network], options: Any) -> U:
    return kind(shared_model(source, build), options, source)


@contextmanager
def progress_bar(work: Work, doing: str, unit: str, *, show: bool) -> Iterator[Work]:
    """Show how far work has come.

    Args:
        work: The work.
        doing: What the bar says is done.
        unit: What is counted.
        show: Show it.

    Yields:
        The work to hand in.
    """
    if not show:
        yield work
        return
    from tqdm.auto import tqdm

    with tqdm(total=len(work.tokens.lengths), desc=doing, unit=unit) as bar:
        yield dataclasses.replace(work, progress=bar.update)


# Of a source: what only says where the files are, and what is compared by what it comes out as.
_RESOLVED = frozenset(
    {"name", "revision", "cache_folder", "token", "local_files_only", "device", "dtype"}
)


class _Registry:
    """Models by what loads them: by the arguments, and by what these resolve to."""

    def __init__(self) -> None:
        self.after_fork()
        self._models: dict[Any, LoadedModel] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._loading: dict[Any, threading.Lock] = {}

    def get(self, source: Source, build: Callable[..., Network]) -> LoadedModel:
        # A relative path names another folder after a change of the working directory.
        folder = os.path.realpath(source.name) if Path(source.name).is_dir() else None
        options = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
        asked = (build, folder, *map(str, options.values()))
        known = self._models.get(asked)
        if known is not None and not known.closed:
            return known
        device = resolve_device(source.device)
        found = (
            build,
            os.path.realpath(source.locate()),
            device if device.type == "cuda" else device.type,
            resolve_dtype(source.dtype, device),
            *(value for name, value in options.items() if name not in _RESOLVED),
        )
        with self._lock:
            lock = self._loading.setdefault(found, threading.Lock())
        with lock:
            model = self._models.get(found)
            if model is None or model.closed:
                model = LoadedModel.load(source, build)
            self._models[found] = self._models[asked] = model
        return model


_registry = _Registry()


def shared_model(source: Source, build: Callable[..., Network]) -> LoadedModel:
    """Load a checkpoint once for the whole process, or return it if it is loaded already.

    Args:
        source: Where it is, and how it shall run.
        build: As of ``LoadedModel.load``.

    Returns:
        The same object wherever folder, device and data type come out the same, however they were
        said; loaded anew after ``close()``.
    """
    return _registry.get(source, build)
