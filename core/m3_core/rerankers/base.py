"""The reranker: scores of (query, document) pairs, whatever network computes them."""

from __future__ import annotations

import warnings
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, cast

from m3_core.beside import beside
from m3_core.network import (
    CHARACTERS_ON_THE_LOOP,
    LoadedModel,
    ModelUser,
    Source,
    TruncationWarning,
    Work,
    count,
    level_of_caller,
    progress_bar,
    shared_model,
)
from m3_core.rerankers.loading import RerankerProgram, load_reranker
from m3_core.rerankers.network import RerankerOptions, changed_options
from m3_core.rerankers.pairs import encode_pairs
from m3_core.rerankers.ranking import select_best
from m3_core.rerankers.scores import ScoreCollector, sigmoid
from m3_core.texts import CheckedPairs, check_pairs, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from m3_core.rerankers.loading import RerankerKind
    from m3_core.rerankers.network import RerankerNetwork
    from m3_core.rerankers.pairs import PairBatch


class Reranker(ModelUser):
    """A loaded model that scores how well a document answers a query.

    Made by ``Reranker.from_pretrained``, which tells from the checkpoint what kind it is:

    - ``cross-encoder``: bge-reranker-base, -large, -v2-m3.
    - ``llm``: bge-reranker-v2-gemma. transformers runs the network (extra ``transformers``, as for
      the next two); the score is the logit of "Yes" after the prompt.
    - ``layerwise``: bge-reranker-v2-minicpm-layerwise, and ``lightweight``:
      bge-reranker-v2.5-gemma2-lightweight. The code that these two checkpoints bring was written
      for transformers 4 and does not run with 5. It is not used, so nothing remote is trusted:
      the networks are put together from transformers' own Llama and Gemma 2 layers.

    Threads, event loops and forked processes may share it: an engine puts what they ask for at the
    same time into common batches.

    Args:
        model: The loaded checkpoint.
        options: What changes the scores without changing the weights.
        source: By which name it was asked for; the model's own if ``None``.

    Raises:
        TypeError: A name is given in place of a model.
        ValueError: An option does not fit the model.
    """

    options: RerankerOptions

    _elsewhere: ClassVar[Mapping[str, str]] = {
        "predict": ", as sentence-transformers has: use compute_score, or rank",
    }

    def __init__(
        self,
        model: LoadedModel,
        options: RerankerOptions | None = None,
        source: Source | None = None,
    ) -> None:
        if options is None or isinstance(model, (str, PathLike)):
            raise TypeError(
                f"Reranker is made of a loaded model and its options; got {model!r}: load one by "
                "its name with Reranker.from_pretrained"
            )
        model.check_length(options.max_length, least=0)
        super().__init__(model, options, source)
        self._network.check(options)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        query_max_length: int | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        cache_folder: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        token_budget: int | None = None,
        prompt: str | None = None,
        cutoff_layers: int | Sequence[int] | None = None,
        compress_layers: Sequence[int] | None = None,
        compress_ratio: int | None = None,
    ) -> Reranker:
        """Load a reranker from a local folder or the hub.

        Args:
            name: A folder, or a repository such as ``"BAAI/bge-reranker-v2-m3"``.
            revision: Branch, tag or commit of the repository.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; by default the best there is.
            dtype: ``"auto"`` is float16 on CUDA, bfloat16 on a CPU with instructions for it, else
                float32. ``"float32"`` gives reference numbers. ``"int8"``: on CPUs, for
                cross-encoders, matrix products in int8.
            max_length: Tokens a pair at most; 512 by default as in FlagEmbedding, up to 8192
                for v2-m3. A decoder's prompt comes on top of it.
            query_max_length: Tokens a query at most, without special tokens; by default three
                quarters of ``max_length``.
            query_instruction: Put before queries; by default nothing, ``"A: "`` for decoders.
            document_instruction: Put before documents; likewise, ``"B: "``.
            cache_folder: Where downloads are kept.
            token: Access token of the hub.
            local_files_only: Ask no server.
            trust_remote_code: Accepted as in ``Encoder``, but no model here needs it: code of
                the checkpoint is never run.
            token_budget: Tokens a batch at most; by default chosen from the device.
            prompt: The question put to a decoder; by default the one it was trained with.
            cutoff_layers: After which layers of a layerwise or lightweight model scores are
                taken; by default the last.
            compress_layers: Before which layers of a lightweight model a document's tokens are
                merged; by default ``[8]``.
            compress_ratio: How many tokens are merged into one; by default 1, so none.

        Returns:
            The reranker.

        Raises:
            CheckpointError: The files are absent, unreadable, incomplete or of another model.
            DeviceError: The device is absent or cannot compute in the data type.
            ValueError: An option does not fit the model.
        """
        source = Source(
            name=name,
            revision=revision,
            device=device,
            dtype=dtype,
            cache_folder=cache_folder,
            token=token,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            token_budget=token_budget,
        )
        model = LoadedModel.load(source, load_reranker)
        changes = {
            "max_length": max_length,
            "query_max_length": query_max_length,
            "query_instruction": query_instruction,
            "document_instruction": document_instruction,
            "prompt": prompt,
            "cutoff_layers": cutoff_layers,
            "compress_layers": compress_layers,
            "compress_ratio": compress_ratio,
        }
        return cls.over(model, None, **changes)

    @classmethod
    def shared(cls, name: str | Path, **options: Any) -> Reranker:
        """Load a reranker once for the whole process, or return one over the loaded weights.

        Args:
            name: A local folder or a hub repository.
            **options: Those of ``from_pretrained``. Those that change scores but not weights may
                differ from one call to the next.

        Returns:
            A reranker; closing it closes all over the same weights, and the next is loaded anew.

        Raises:
            TypeError: ``from_pretrained`` has no such option.
            M3Error: The model cannot be loaded.
        """
        given = {key: options.pop(key) for key in Source.OPTIONS & options.keys()}
        source = Source(name=str(name), **given)
        return cls.over(shared_model(source, load_reranker), source, **options)

    @classmethod
    def over(cls, model: LoadedModel, source: Source | None = None, **options: Any) -> Reranker:
        """Make a reranker over a loaded model.

        Args:
            model: The loaded checkpoint.
            source: By which name it was asked for.
            **options: Fields of ``RerankerOptions``; ``None`` leaves what its makers use.

        Returns:
            The reranker.
        """
        own = cast("RerankerProgram", model.network).network.default_options
        return cls(model, changed_options(own, options), source)

    def with_options(self, **changes: Any) -> Reranker:
        """Make another reranker over the same loaded weights.

        Args:
            **changes: Fields of ``RerankerOptions``.

        Returns:
            The other reranker; closing either closes both.

        Raises:
            TypeError: There is no such option.
            ValueError: An option does not fit the model.
        """
        return type(self)(self.model, changed_options(self.options, changes), self.source)

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[float]:
        """Score pairs; of several cutoff layers the last one named counts.

        Args:
            pairs: Queries with documents.
            normalize: Put each score through the sigmoid, into 0 to 1; else it is the raw logit.
            max_length: Tokens a pair at most, in this call.
            query_max_length: Tokens a query at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            One score a pair, in their order; an empty list for no pairs.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: A text is no valid Unicode, or a length does not fit the model.
            NonFiniteError: A score is NaN or infinite.
            OutOfMemoryError: A single pair does not fit into memory.
        """
        scores = self._score(pairs, max_length, query_max_length, show_progress=show_progress)
        column = scores[:, -1]
        result: list[float] = (sigmoid(column) if normalize else column).tolist()
        return result

    def compute_layer_scores(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[list[float]]:
        """Score pairs with each of the cutoff layers; arguments and errors of ``compute_score``.

        The result is one list of scores a layer, in the order of ``cutoff_layers``.
        """
        scores = self._score(pairs, max_length, query_max_length, show_progress=show_progress)
        result: list[list[float]] = (sigmoid(scores) if normalize else scores).T.tolist()
        return result

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Order documents by their score with a query.

        Args:
            query: The query.
            documents: The documents.
            top_n: How many to return at most; all if ``None``.
            normalize: As of ``compute_score``.
            max_length: Likewise.
            query_max_length: Likewise.
            show_progress: Likewise.

        Returns:
            (position among the documents, score), the best first; ties in the given order.

        Raises:
            ValueError: ``top_n`` is below 0. The other errors are ``compute_score``'s.
        """
        pairs = _ranked_pairs(query, documents, top_n)
        scores = self.compute_score(
            pairs,
            normalize,
            max_length=max_length,
            query_max_length=query_max_length,
            show_progress=show_progress,
        )
        return select_best(scores, top_n)

    async def acompute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[float]:
        """Do ``compute_score`` without holding up the event loop or occupying a thread."""
        checked = CheckedPairs(zip(*check_pairs(pairs), strict=True))
        if sum(len(query) + len(text) for query, text in checked) > CHARACTERS_ON_THE_LOOP:
            work = await beside(self._work, checked, max_length, query_max_length)
        else:
            work = self._work(checked, max_length, query_max_length)
        with progress_bar(work, "Reranking", "pair", show=show_progress) as shown:
            await self.model.engine.arun(shown)
        column = cast("ScoreCollector", work.collector).scores[:, -1]
        result: list[float] = (sigmoid(column) if normalize else column).tolist()
        return result

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[tuple[int, float]]:
        """Do ``rank`` without holding up the event loop or occupying a thread."""
        pairs = _ranked_pairs(query, documents, top_n)
        scores = await self.acompute_score(
            pairs,
            normalize,
            max_length=max_length,
            query_max_length=query_max_length,
            show_progress=show_progress,
        )
        return select_best(scores, top_n)

    @property
    def kind(self) -> RerankerKind:
        """``"cross-encoder"``, ``"llm"``, ``"layerwise"`` or ``"lightweight"``."""
        return cast("RerankerProgram", self.model.network).kind

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

    @property
    def _network(self) -> RerankerNetwork:
        return cast("RerankerProgram", self.model.network).network

    def _score(
        self,
        pairs: Iterable[tuple[str, str]],
        max_length: int | None,
        query_max_length: int | None,
        *,
        show_progress: bool,
    ) -> NDArray[np.float32]:
        """Raw scores of pairs, one column a cutoff layer."""
        work = self._work(pairs, max_length, query_max_length)
        with progress_bar(work, "Reranking", "pair", show=show_progress) as shown:
            self.model.engine.submit(shown).wait()
        return cast("ScoreCollector", work.collector).scores

    def _work(
        self,
        pairs: Iterable[tuple[str, str]],
        max_length: int | None,
        query_max_length: int | None,
    ) -> Work:
        """Tokenise pairs, and warn once if some were cut."""
        options = self.options
        encoded = self._encode(pairs, max_length, query_max_length)
        columns = len(options.cutoff_layers or (0,))
        collector = ScoreCollector(len(encoded.documents), columns)
        return Work(encoded.tokens, options, collector, group=options, documents=encoded.documents)

    def _encode(
        self,
        pairs: Iterable[tuple[str, str]],
        max_length: int | None,
        query_max_length: int | None,
    ) -> PairBatch:
        options = self.options
        queries, documents = check_pairs(pairs)
        limit = options.max_length if max_length is None else max_length
        self.model.check_length(limit, least=0)
        before = options.query_instruction, options.document_instruction
        encoded = encode_pairs(
            self.model.tokenizer,
            self._network.layout(self.model.tokenizer, options),
            [before[0] + query for query in queries],
            [before[1] + document for document in documents],
            limit,
            options.query_max_length if query_max_length is None else query_max_length,
        )
        cut = int(encoded.tokens.truncated.sum())
        if not count(len(queries), len(encoded.tokens.ids), cut) and cut:
            warnings.warn(
                f"{cut} of {len(queries)} pairs were longer than max_length={limit} tokens and "
                f"were cut to it; {self.name!r} takes up to {self.model.checkpoint.positions}",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )
        return encoded


def _ranked_pairs(query: str, documents: Iterable[str], top_n: int | None) -> CheckedPairs:
    if top_n is not None and top_n < 0:
        raise ValueError(f"top_n must be at least 0; got {top_n}")
    return pairs_of(query, documents)
