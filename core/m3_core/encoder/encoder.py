"""The encoder: the only place that composes instructions, tokens, network and heads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, cast

from m3_core.beside import beside
from m3_core.encoder.fingerprint import options_fingerprint
from m3_core.encoder.options import EncoderOptions, make_request
from m3_core.encoder.pipeline import Pipeline, Request, load_pipeline
from m3_core.encoder.results import RepresentationCollector
from m3_core.encoder.stats import EncoderStats
from m3_core.network import (
    CHARACTERS_ON_THE_LOOP,
    LoadedModel,
    ModelUser,
    Source,
    TruncationWarning,
    Work,
    choose_instructions,
    find_known,
    level_of_caller,
    progress_bar,
)
from m3_core.scoring import pair_scores
from m3_core.texts import check_pairs, check_texts, distinct
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from m3_core.encoder.protocol import Role
    from m3_core.network import Pooling, Ticket, TokenBatch
    from m3_core.representations import Representations


class Encoder(ModelUser):
    """A loaded model that turns texts into dense vectors, lexical weights and multi-vectors.

    Made by ``Encoder.from_pretrained``. Threads, event loops and forked processes may share it: an
    engine puts what they ask for at the same time into common batches.

    Args:
        model: The loaded checkpoint.
        options: What changes the results without changing the weights.
        source: By which name it was asked for; the model's own if ``None``.

    Raises:
        ValueError: An option does not fit the model.
    """

    options: EncoderOptions

    _elsewhere: ClassVar[Mapping[str, str]] = {
        "encode": ", as sentence-transformers has: use encode_queries or encode_documents",
        "get_sentence_embedding_dimension": ", as sentence-transformers has: use dimension",
        "max_seq_length": " (sentence-transformers' name; it is max_length here)",
    }

    def __init__(
        self, model: LoadedModel, options: EncoderOptions, source: Source | None = None
    ) -> None:
        model.check_length(options.max_length)
        super().__init__(model, options, source)
        width = self._network.hidden_size
        if options.truncate_dim is not None and not 0 < options.truncate_dim <= width:
            raise ValueError(
                f"truncate_dim is {options.truncate_dim}; the vectors have {width} values"
            )
        if options.pooling not in ("cls", "mean", "last"):
            raise ValueError(f"pooling {options.pooling!r} is none of 'cls', 'mean', 'last'")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        cache_folder: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        truncate_dim: int | None = None,
        normalize: bool = True,
        pooling: Pooling | None = None,
        task: str | None = None,
        token_budget: int | None = None,
    ) -> Encoder:
        """Load a model from a local folder or the hub.

        Args:
            name: A folder, or a repository such as ``"BAAI/bge-m3"``.
            revision: Branch, tag or commit of the repository.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; by default the best there is.
            dtype: ``"auto"`` is float16 on CUDA, bfloat16 on a CPU with instructions for it, else
                float32. ``"float32"`` gives reference numbers.
            max_length: Tokens a text at most; by default what the checkpoint allows (8192 for
                M3, 512 for v1 and v1.5).
            query_instruction: Put before queries. By default the checkpoint's own prompt, else
                the known model's (none for M3); ``""`` for none.
            document_instruction: Put before documents, likewise.
            cache_folder: Where downloads are kept.
            token: Access token of the hub.
            local_files_only: Ask no server.
            trust_remote_code: Run model code that the checkpoint brings.
            truncate_dim: Keep so many leading values of dense and multi-vectors.
            normalize: Scale dense and multi-vectors to length 1.
            pooling: How the dense vector is taken; by default as the checkpoint says, else CLS.
            task: Choose among the instructions of a model that has several (LLM-Embedder).
            token_budget: Tokens a batch at most; by default chosen from the device.

        Returns:
            The encoder.

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
        return cls.over(
            LoadedModel.load(source, load_pipeline),
            max_length=max_length,
            query_instruction=query_instruction,
            document_instruction=document_instruction,
            truncate_dim=truncate_dim,
            normalize=normalize,
            pooling=pooling,
            task=task,
        )

    @classmethod
    def over(
        cls,
        model: LoadedModel,
        source: Source | None = None,
        *,
        max_length: int | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        pooling: Pooling | None = None,
        task: str | None = None,
        **options: Any,
    ) -> Encoder:
        """Make an encoder over a loaded model, with its own settings where the user left them open.

        Args:
            model: The loaded checkpoint.
            source: By which name it was asked for.
            max_length: Tokens a text at most.
            query_instruction: Put before queries.
            document_instruction: Put before documents.
            pooling: How the dense vector is taken.
            task: Of LLM-Embedder: chooses the instructions.
            **options: Other fields of ``EncoderOptions``.

        Returns:
            The encoder.
        """
        checkpoint = model.checkpoint
        name = str((source or model.source).name)
        known = find_known(name, checkpoint.config.get("_name_or_path"))
        query, document = choose_instructions(
            known, checkpoint.prompts, query_instruction, document_instruction, task
        )
        return cls(
            model,
            EncoderOptions(
                max_length=checkpoint.default_length if max_length is None else max_length,
                query_instruction=query,
                document_instruction=document,
                pooling=pooling or checkpoint.pooling or "cls",
                **options,
            ),
            source,
        )

    @property
    def origin(self) -> LoadedModel:
        """The loaded model: what computes, for all encoders over it."""
        return self.model

    @property
    def representations(self) -> frozenset[str]:
        """What the model gives: of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        has_heads = self._network.colbert_dimension > 0
        return frozenset({"dense", "sparse", "colbert"} if has_heads else {"dense"})

    @property
    def dimension(self) -> int:
        """Width of the dense vectors."""
        return self.options.truncate_dim or self._network.hidden_size

    @property
    def colbert_dimension(self) -> int:
        """Width of the multi-vectors; 0 where the model has none."""
        whole = self._network.colbert_dimension
        return min(self.options.truncate_dim or whole, whole)

    @property
    def max_length(self) -> int:
        """Tokens a text at most, special tokens included."""
        return self.options.max_length

    @property
    def query_instruction(self) -> str:
        """What is put before every query; ``""`` for nothing."""
        return self.options.query_instruction

    @property
    def document_instruction(self) -> str:
        """What is put before every document; ``""`` for nothing."""
        return self.options.document_instruction

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids: width of the lexical weights as a matrix."""
        return self.model.tokenizer.vocabulary_size

    def with_options(self, **changes: Any) -> Encoder:
        """Make another encoder over the same loaded weights.

        Args:
            **changes: Fields of ``EncoderOptions``.

        Returns:
            The other encoder; closing either closes both.

        Raises:
            TypeError: There is no such option.
            ValueError: An option does not fit the model.
        """
        return type(self)(self.model, replace(self.options, **changes), self.source)

    def encode_queries(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Encode queries, with the query instruction before each.

        Args:
            texts: A list or any other iterable of strings.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            Representations in the order of the texts.

        Raises:
            TypeError: A text is no string.
            ValueError: A text is no valid Unicode, nothing was asked for, or ``max_length``
                does not fit the model.
            MissingRepresentationError: The model does not give what was asked for.
            NonFiniteError: An output holds NaN or infinity.
            OutOfMemoryError: A single text does not fit into memory.
        """
        request = self._request(
            dense=return_dense, sparse=return_sparse, colbert=return_colbert_vecs
        )
        return self._encode("query", texts, request, max_length, show_progress=show_progress)

    def encode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
        *,
        mcls: bool = False,
    ) -> Representations:
        """Encode documents, with the document instruction (if there is one) before each.

        Args:
            texts: As of ``encode_queries``.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most, in this call.
            show_progress: Show a progress bar.
            mcls: For long documents: put a CLS token before every 256 tokens and average their
                states in the dense vector (arXiv 2402.03216, "Multiple CLS").

        Returns:
            Representations in the order of the texts.

        Raises:
            ValueError: As of ``encode_queries``, or the model does not pool CLS and ``mcls`` is
                set. The other errors are as there too.
        """
        request = self._request(
            dense=return_dense, sparse=return_sparse, colbert=return_colbert_vecs, mcls=mcls
        )
        return self._encode("document", texts, request, max_length, show_progress=show_progress)

    async def aencode_queries(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
    ) -> Representations:
        """Do ``encode_queries`` without holding up the event loop or occupying a thread."""
        request = self._request(
            dense=return_dense, sparse=return_sparse, colbert=return_colbert_vecs
        )
        return await self._aencode("query", texts, request, max_length, show_progress=show_progress)

    async def aencode_documents(
        self,
        texts: Iterable[str],
        return_dense: bool = True,  # noqa: FBT001, FBT002 (FlagEmbedding's flags)
        return_sparse: bool = False,  # noqa: FBT001, FBT002
        return_colbert_vecs: bool = False,  # noqa: FBT001, FBT002
        max_length: int | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002
        *,
        mcls: bool = False,
    ) -> Representations:
        """Do ``encode_documents`` without holding up the event loop or occupying a thread."""
        request = self._request(
            dense=return_dense, sparse=return_sparse, colbert=return_colbert_vecs, mcls=mcls
        )
        return await self._aencode(
            "document", texts, request, max_length, show_progress=show_progress
        )

    def encode_stream(
        self,
        texts: Iterable[str],
        batch_size: int = 1024,
        *,
        role: Role = "document",
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        max_length: int | None = None,
        mcls: bool = False,
    ) -> Iterator[Representations]:
        """Encode any number of texts in bounded memory.

        The next batch is tokenised while the network computes the current one.

        Args:
            texts: Any iterable; it is read one batch ahead of what was yielded, in the thread that
                asks for the results.
            batch_size: Texts a batch; within one they are sorted by length.
            role: Encode them as ``"document"`` or ``"query"``.
            return_dense: Give dense vectors.
            return_sparse: Give lexical weights.
            return_colbert_vecs: Give multi-vectors.
            max_length: Tokens a text at most.
            mcls: As of ``encode_documents``.

        Returns:
            Yields the representations of the next ``batch_size`` texts, in order.

        Raises:
            ValueError: ``batch_size`` is below 1, ``role`` is unknown, or as ``encode_queries``.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if role not in ("query", "document"):
            raise ValueError(f"role must be 'query' or 'document'; got {role!r}")
        request = self._request(
            dense=return_dense, sparse=return_sparse, colbert=return_colbert_vecs, mcls=mcls
        )
        return self._stream(iter(texts), batch_size, role, request, max_length)

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
    ) -> dict[str, list[float]]:
        """Score (query, document) pairs in all ways that M3 knows.

        Each distinct text is encoded once, with its instruction, and only the given pairs are
        scored. Without instructions (M3 has none) the numbers are FlagEmbedding's at batch size 1:
        it puts none here, and at larger sizes its multi-vector scores depend on the padding.

        Args:
            pairs: Queries with documents.
            weights: Of dense, sparse and colbert in the combined scores.
            max_length: Tokens a document at most; and a query, unless the next says otherwise.
            query_max_length: Tokens a query at most.

        Returns:
            One score a pair under each of the keys ``"colbert"``, ``"sparse"``, ``"dense"``,
            ``"sparse+dense"`` and ``"colbert+sparse+dense"``; empty lists for no pairs.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: The weights are not three numbers with a sum above 0.
            MissingRepresentationError: The model is a dense one.
        """
        request = self._request(dense=True, sparse=True, colbert=True)
        queries, documents = check_pairs(pairs)
        query_rows, distinct_queries = distinct(queries)
        document_rows, distinct_documents = distinct(documents)
        scores = pair_scores(
            self._encode("query", distinct_queries, request, query_max_length or max_length),
            self._encode("document", distinct_documents, request, max_length),
            query_rows,
            document_rows,
            weights,
        )
        return {key: value.tolist() for key, value in scores.items()}

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name everything that changes the representations of documents.

        Equal for copies of a checkpoint, wherever they lie. Device and data type do not count: they
        change vectors only by rounding.

        Args:
            parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
            queries: The instruction of queries counts too.

        Returns:
            ``"m3-"`` and 16 hexadecimal digits.
        """
        return options_fingerprint(self.model.fingerprint, self.options, parts, queries=queries)

    def decode_weights(self, weights: Mapping[int, float]) -> dict[str, float]:
        """Show lexical weights with token texts in place of ids.

        Args:
            weights: ``{token id: weight}``; FlagEmbedding's string keys will do.

        Returns:
            ``{token text: weight}``. Where two ids have the same text (one at the start of a
            word, one within), the larger weight stands.

        Raises:
            TypeError: It is no mapping, or of no numbers.
            ValueError: A token id is none of the model's.
        """
        decoded: dict[str, float] = {}
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights are a mapping of token ids to weights; got {shown(weights)}")
        for token_id, weight in weights.items():
            if not 0 <= int(token_id) < self.vocabulary_size:
                raise ValueError(
                    f"{shown(token_id)} is no token id; {self.name!r} has {self.vocabulary_size}"
                )
            text = self.model.tokenizer.id_to_token(int(token_id))
            decoded[text] = max(float(weight), decoded.get(text, 0.0))
        return decoded

    def stats(self) -> EncoderStats:
        """What engine and cache of the model have done so far, for all who share it.

        Returns:
            Numbers of requests, texts, tokens and batches, how full these were, how long requests
            waited, and how often adapters found what they asked for.
        """
        return EncoderStats.of(self, super().stats())

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self.closed:
            return f"{kind}({self.name!r}, closed)"
        options = self.options
        return (
            f"{kind}({self.name!r}, device='{self.device}', dtype='{str(self.dtype)[6:]}', "
            f"representations={sorted(self.representations)}, dimension={self.dimension}, "
            f"max_length={options.max_length}, pooling={options.pooling!r}, "
            f"query_instruction={options.query_instruction!r}, "
            f"document_instruction={options.document_instruction!r})"
        )

    @property
    def _network(self) -> Pipeline:
        return cast("Pipeline", self.model.network)

    def _request(self, *, dense: bool, sparse: bool, colbert: bool, mcls: bool = False) -> Request:
        return make_request(
            self.name,
            self.representations,
            self.options,
            dense=dense,
            sparse=sparse,
            colbert=colbert,
            mcls=mcls,
        )

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        request: Request,
        max_length: int | None,
        *,
        show_progress: bool = False,
    ) -> Representations:
        work = self._work(role, check_texts(texts), request, max_length)
        with progress_bar(work, "Encoding", "text", show=show_progress) as shown:
            self.model.engine.submit(shown).wait()
        return cast("RepresentationCollector", work.collector).result()

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        request: Request,
        max_length: int | None,
        *,
        show_progress: bool = False,
    ) -> Representations:
        checked = check_texts(texts)
        if sum(map(len, checked)) > CHARACTERS_ON_THE_LOOP:
            work = await beside(self._work, role, checked, request, max_length)
        else:
            work = self._work(role, checked, request, max_length)
        with progress_bar(work, "Encoding", "text", show=show_progress) as shown:
            await self.model.engine.arun(shown)
        return cast("RepresentationCollector", work.collector).result()

    def _work(self, role: Role, texts: list[str], request: Request, max_length: int | None) -> Work:
        """Tokenise texts, and warn once if some were cut."""
        options, model = self.options, self.model
        queries = role == "query"
        instruction = options.query_instruction if queries else options.document_instruction
        limit = model.check_length(options.max_length if max_length is None else max_length)
        every = None if request.marker_every is None else request.marker_every - 1
        if instruction:
            texts = [instruction + text for text in texts]
        tokens = model.tokenizer.encode(texts, limit, every)
        cut = int(tokens.truncated.sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts were longer than max_length={limit} tokens and were "
                "cut to it",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )
        return self.work(tokens, request)

    def work(self, tokens: TokenBatch, request: Request) -> Work:
        """Make work for the engine of texts that are tokenised already.

        Args:
            tokens: The texts.
            request: What to compute.

        Returns:
            The work; its collector is a ``RepresentationCollector``.
        """
        return Work(tokens, request, RepresentationCollector(self._network, tokens, request))

    def _stream(
        self,
        texts: Iterator[str],
        batch_size: int,
        role: Role,
        request: Request,
        max_length: int | None,
    ) -> Iterator[Representations]:
        read = 0

        def submitted() -> tuple[Work, Ticket] | None:
            nonlocal read
            part = check_texts(islice(texts, batch_size), read)
            if not part:
                return None
            read += len(part)
            work = self._work(role, part, request, max_length)
            return work, self.model.engine.submit(work)

        running = submitted()
        while running is not None:
            work, ticket = running
            running, failure = None, None
            try:
                running = submitted()
            except Exception as error:  # noqa: BLE001 (raised once the texts before it are given)
                failure = error
            try:
                ticket.wait()
                yield cast("RepresentationCollector", work.collector).result()
            except BaseException:
                if running is not None:
                    running[1].cancel()
                raise
            if failure is not None:
                raise failure
