"""A loaded checkpoint: tokenizer, network and heads, shared by all encoders over it."""

from __future__ import annotations

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from m3_core.backbone import Backbone
from m3_core.checkpoint import locate, read_checkpoint, read_heads
from m3_core.device import resolve_device, resolve_dtype
from m3_core.errors import ClosedError, UnsupportedModelError
from m3_core.instructions import find_known
from m3_core.pipeline import Pipeline
from m3_core.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from m3_core.checkpoint import Checkpoint, Pooling
    from m3_core.instructions import KnownModel
    from m3_core.tokens import TokenBatch

ASYNC_WORKERS = 4


class TruncationWarning(UserWarning):
    """Texts were longer than ``max_length`` and were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What changes an encoder's results without changing its weights.

    Attributes:
        max_length: Tokens a text at most, special tokens included.
        query_instruction: Put before every query, with no space between; ``""`` for none.
        document_instruction: Put before every document, likewise.
        truncate_dim: Keep so many leading values of dense and multi-vectors (Matryoshka).
        normalize: Scale dense and multi-vectors to length 1.
        pooling: How the dense vector is taken: ``"cls"``, ``"mean"`` or ``"last"``.
    """

    max_length: int
    query_instruction: str = ""
    document_instruction: str = ""
    truncate_dim: int | None = None
    normalize: bool = True
    pooling: Pooling = "cls"


class Model:
    """A loaded checkpoint.

    Args:
        checkpoint: What its small files say.
        tokenizer: Its tokenizer.
        pipeline: Its network and heads.
        known: Its entry in the table of known models.
        source: The arguments that load it again.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        pipeline: Pipeline,
        known: KnownModel | None,
        source: Mapping[str, Any],
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.known = known
        self.source = source
        self.executor = ThreadPoolExecutor(ASYNC_WORKERS, thread_name_prefix="m3-encoder")
        self._pipeline: Pipeline | None = pipeline

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None,
        dtype: str | torch.dtype,
        trust_remote_code: bool,
        token_budget: int | None,
        **where: Any,
    ) -> Model:
        """Load a checkpoint of an encoder.

        Args:
            name: A folder or a hub repository.
            device: Where the network shall run.
            dtype: In what data type.
            trust_remote_code: Run model code that the checkpoint brings.
            token_budget: Tokens a batch at most.
            **where: As of ``checkpoint.locate``.

        Returns:
            The model.

        Raises:
            UnsupportedModelError: It is a reranker.
        """
        chosen_device = resolve_device(device)
        chosen_dtype = resolve_dtype(dtype, chosen_device)
        folder = locate(name, **where)
        checkpoint = read_checkpoint(folder, str(name))
        known = find_known(str(name), checkpoint.config.get("_name_or_path"))
        if known is not None and known.pooling is None:
            raise UnsupportedModelError(
                f"{str(name)!r} is a reranker, not an encoder: it scores pairs and gives no vectors"
            )
        heads = read_heads(
            folder,
            int(checkpoint.config["hidden_size"]),
            required=known is not None and known.kind == "m3",
        )
        tokenizer = Tokenizer.from_folder(folder)
        backbone = Backbone.load(
            checkpoint, chosen_device, chosen_dtype, trust_remote_code=trust_remote_code
        )
        pipeline = Pipeline(backbone, tokenizer, heads, token_budget)
        source = dict(where, name=str(name), device=device, dtype=dtype, token_budget=token_budget)
        source["trust_remote_code"] = trust_remote_code
        return cls(checkpoint, tokenizer, pipeline, known, source)

    @property
    def pipeline(self) -> Pipeline:
        """Network and heads.

        Raises:
            ClosedError: The model was closed.
        """
        if self._pipeline is None:
            raise ClosedError(f"the encoder of {self.checkpoint.name!r} was closed: load it again")
        return self._pipeline

    @property
    def closed(self) -> bool:
        """Whether the network is gone."""
        return self._pipeline is None

    def check_length(self, max_length: int) -> int:
        """Return a length in tokens if the model takes it.

        Args:
            max_length: Special tokens included.

        Returns:
            The same.

        Raises:
            ValueError: It is too short for any text or longer than the model's positions.
        """
        positions = self.checkpoint.positions
        if not 3 <= max_length <= positions:
            raise ValueError(
                f"max_length is {max_length}; {self.checkpoint.name!r} takes from 3 to "
                f"{positions} tokens"
            )
        return max_length

    def tokenize(
        self, texts: list[str], max_length: int, marker_every: int | None = None
    ) -> TokenBatch:
        """Tokenise checked texts and warn once if some were cut.

        Args:
            texts: With their instruction.
            max_length: Tokens a text at most.
            marker_every: As of ``Tokenizer.encode``.

        Returns:
            Their tokens.
        """
        limit = self.check_length(max_length)
        tokens = self.tokenizer.encode(texts, limit, marker_every)
        cut = int(tokens.truncated.sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts were longer than max_length={limit} tokens and were "
                "cut to it",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )
        return tokens

    def close(self) -> None:
        """Let go of the network and its memory."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        self.executor.shutdown(wait=True)
        on_cuda = pipeline.backbone.device.type == "cuda"
        del pipeline
        if on_cuda:
            torch.cuda.empty_cache()


def level_of_caller() -> int:
    """The ``stacklevel`` of the first frame outside this distribution's packages.

    Returns:
        As ``warnings.warn`` wants it from the function that asks.
    """
    # The adapters' objects are constructed by pydantic.
    own = ("m3_core", "langchain_m3", "llamaindex_m3", "pydantic")
    frame, level = sys._getframe(1), 1
    while frame.f_globals.get("__name__", "").partition(".")[0] in own and frame.f_back:
        frame, level = frame.f_back, level + 1
    return level


_shared: dict[Any, Model] = {}
_shared_locks: dict[Any, threading.Lock] = {}
_registry_lock = threading.Lock()


def shared_model(**source: Any) -> Model:
    """Load a checkpoint once for the whole process, or return it if it is loaded already.

    Args:
        **source: As of ``Model.load``.

    Returns:
        The same object for the same arguments, from any thread; loaded anew after ``close()``.
    """
    key = tuple(sorted((name, str(value)) for name, value in source.items()))
    with _registry_lock:
        lock = _shared_locks.setdefault(key, threading.Lock())
    with lock:
        model = _shared.get(key)
        if model is None or model.closed:
            model = _shared[key] = Model.load(**source)
        return model
