"""What ``Reranker`` is made of: a loaded model, options, and the steps from pairs to scores."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from tqdm.auto import tqdm

from m3_core.errors import NonFiniteError
from m3_core.execution import run_in_executor
from m3_core.model import TruncationWarning, level_of_caller
from m3_core.rerankers.loading import RerankerModel, shared_reranker_model
from m3_core.rerankers.network import RerankerOptions
from m3_core.rerankers.pairs import encode_pairs
from m3_core.texts import check_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch
    from numpy.typing import NDArray

    from m3_core.batches import PackedBatch
    from m3_core.rerankers.loading import RerankerKind
    from m3_core.rerankers.pairs import PairBatch

P = ParamSpec("P")
T = TypeVar("T")


class RerankerBase:
    """A model with options; ``Reranker`` adds the public calls.

    Args:
        model: The loaded checkpoint.
        options: What changes the scores without changing the weights.

    Raises:
        ValueError: An option does not fit the model.
    """

    def __init__(self, model: RerankerModel, options: RerankerOptions) -> None:
        model.check_length(options.max_length)
        model.network.check(options)
        self.model = model
        self.options = options

    @property
    def name(self) -> str:
        """The name that the model was loaded by."""
        return self.model.checkpoint.name

    @property
    def kind(self) -> RerankerKind:
        """``"cross-encoder"``, ``"llm"``, ``"layerwise"`` or ``"lightweight"``."""
        return self.model.kind

    @property
    def max_length(self) -> int:
        """Tokens a pair at most, special tokens included; a decoder's prompt is not counted."""
        return self.options.max_length

    @property
    def query_max_length(self) -> int:
        """Tokens a query at most, without special tokens."""
        own = self.options.query_max_length
        return self.max_length * 3 // 4 if own is None else own

    @property
    def query_instruction(self) -> str:
        """What is put before every query; ``""`` for nothing."""
        return self.options.query_instruction

    @property
    def document_instruction(self) -> str:
        """What is put before every document; ``""`` for nothing."""
        return self.options.document_instruction

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

    async def run_async(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the reranker's few threads, with the caller's context."""
        return await run_in_executor(self.model.executor, function, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Weights do not travel: the other process loads them once for all that arrive there.
        return _reload, (type(self), dict(self.model.source), self.options)

    def __copy__(self) -> RerankerBase:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> RerankerBase:
        return self

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self.closed:
            return f"{kind}({self.name!r}, closed)"
        changed = {
            field.name: value
            for field in fields(RerankerOptions)
            if (value := getattr(self.options, field.name)) != field.default
        }
        shown: dict[str, Any] = {
            "kind": self.kind,
            "device": str(self.device),
            "dtype": str(self.dtype)[6:],
        }
        shown |= {"max_length": self.max_length, **changed}
        return f"{kind}({self.name!r}, {', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def _score(
        self,
        pairs: Iterable[tuple[str, str]],
        max_length: int | None,
        query_max_length: int | None,
        *,
        show_progress: bool,
    ) -> NDArray[np.float32]:
        """Raw scores of pairs, one column a cutoff layer."""
        network, options = self.model.network, self.options
        encoded = self._encode(pairs, max_length, query_max_length)
        num_pairs = len(encoded.documents)
        scores = np.empty((num_pairs, len(options.cutoff_layers or (0,))), np.float32)

        def compute(batch: PackedBatch) -> dict[str, torch.Tensor]:
            documents = encoded.documents[batch.rows]
            return {"scores": network.score(batch, documents, options)}

        def collect(batch: PackedBatch, arrays: dict[str, NDArray[Any]]) -> None:
            _check_finite(arrays["scores"], batch)
            scores[batch.rows] = arrays["scores"]

        run = partial(self.model.runner.run, encoded.tokens, compute, collect)
        if show_progress:
            with tqdm(total=num_pairs, desc="Reranking", unit="pair") as bar:
                run(bar.update)
        else:
            run()
        return scores

    def _encode(
        self,
        pairs: Iterable[tuple[str, str]],
        max_length: int | None,
        query_max_length: int | None,
    ) -> PairBatch:
        options = self.options
        queries, documents = check_pairs(pairs)
        limit = options.max_length if max_length is None else max_length
        self.model.check_length(limit)
        before = options.query_instruction, options.document_instruction
        encoded = encode_pairs(
            self.model.tokenizer,
            self.model.network.layout(self.model.tokenizer, options),
            [before[0] + query for query in queries],
            [before[1] + document for document in documents],
            limit,
            options.query_max_length if query_max_length is None else query_max_length,
        )
        cut = int(encoded.tokens.truncated.sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(queries)} pairs were longer than max_length={limit} tokens and "
                f"were cut to it; {self.name!r} takes up to {self.model.checkpoint.positions}",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )
        return encoded


def changed_options(options: RerankerOptions, changes: Mapping[str, Any]) -> RerankerOptions:
    """Give options other values; ``None`` leaves the value.

    Args:
        options: The options.
        changes: New values by name; a single layer stands for a sequence of one.

    Returns:
        Other options.

    Raises:
        TypeError: There is no such option.

    Example:
        >>> changed_options(RerankerOptions(), {"cutoff_layers": 28}).cutoff_layers
        (28,)
    """
    given: dict[str, Any] = {}
    for key, value in changes.items():
        if value is None:
            continue
        if key in ("cutoff_layers", "compress_layers"):
            given[key] = (value,) if isinstance(value, int) else tuple(value)
        else:
            given[key] = value
    return replace(options, **given)


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Put raw scores into 0 to 1, in double precision so that large ones stay apart.

    Args:
        scores: Logits of any shape.

    Returns:
        ``1 / (1 + exp(-score))``, of the same shape.

    Example:
        >>> sigmoid(np.array([0.0, -1000.0, 1000.0], np.float32)).tolist()
        [0.5, 0.0, 1.0]
    """
    # exp only of negative numbers: it cannot overflow.
    small = np.exp(-np.abs(scores.astype(np.float64)))
    result: NDArray[np.float64] = np.where(scores >= 0, 1.0, small) / (1.0 + small)
    return result


def _check_finite(scores: NDArray[np.float32], batch: PackedBatch) -> None:
    bad = sorted(batch.rows[~np.isfinite(scores).all(1)].tolist())
    if bad:
        listed = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
        raise NonFiniteError(
            f"the scores of {len(bad)} pairs (positions {listed}) are NaN or infinite: the "
            "weights are damaged, or their data type overflows: try dtype='bfloat16' or 'float32'"
        )


def _reload(
    kind: type[RerankerBase], source: dict[str, Any], options: RerankerOptions
) -> RerankerBase:
    return kind(shared_reranker_model(**source), options)
