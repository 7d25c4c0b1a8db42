"""The encoder: the only place that composes instructions, tokens, network and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from m3_core.encoder.fingerprint import options_fingerprint
from m3_core.encoder.options import EncoderOptions
from m3_core.encoder.pipeline import load_pipeline
from m3_core.encoder.protocol import PARTS, asked
from m3_core.encoder.running import RunningEncoder
from m3_core.encoder.stats import EncoderStats
from m3_core.network import LoadedModel, Source, choose_instructions, find_known
from m3_core.scoring import pair_scores
from m3_core.texts import check_pairs, check_several, check_texts, distinct
from m3_core.values import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from m3_core.encoder.protocol import Role
    from m3_core.network import Pooling
    from m3_core.representations import Representations


class Encoder(RunningEncoder):
    """A loaded model that turns texts into dense vectors, lexical weights and multi-vectors.

    Made by ``Encoder.from_pretrained``. Threads, event loops and forked processes may share it: an
    engine puts what they ask for at the same time into common batches.

    Args:
        model: The loaded checkpoint.
        options: What changes the results without changing the weights.
        source: By which name it was asked for; the model's own if ``None``.

    Raises:
        TypeError: A name is given in place of a model.
        ValueError: An option does not fit the model.
    """

    _elsewhere: ClassVar[Mapping[str, str]] = {
        "encode": ", as sentence-transformers has: use encode_queries or encode_documents",
        "embed_query": ", as LangChain has: langchain_m3.M3Embeddings does",
        "embed_documents": ", as LangChain has: langchain_m3.M3Embeddings does",
        "convert_id_to_token": ", as FlagEmbedding has: use decode_weights for each text",
        "get_sentence_embedding_dimension": ", as sentence-transformers has: use dimension",
        "max_seq_length": " (sentence-transformers' name; it is max_length here)",
    }

    def __init__(
        self,
        model: LoadedModel,
        options: EncoderOptions | None = None,
        source: Source | None = None,
    ) -> None:
        if options is None or isinstance(model, (str, PathLike)):
            raise TypeError(
                f"Encoder is made of a loaded model and its options; got {model!r}: load one by "
                "its name with Encoder.from_pretrained"
            )
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
                float32. ``"float32"`` gives reference numbers. ``"int8"``: on CPUs, for XLM-R,
                RoBERTa and BERT, matrix products in int8.
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
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return self._encode(
            "document", texts, parts, max_length, show_progress=show_progress, mcls=mcls
        )

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
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        return await self._aencode(
            "document", texts, parts, max_length, show_progress=show_progress, mcls=mcls
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
            TypeError: The texts are a single one; other types are found when they are read.
            ValueError: ``batch_size`` is below 1, ``role`` is unknown, or as ``encode_queries``.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if role not in ("query", "document"):
            raise ValueError(f"role must be 'query' or 'document'; got {role!r}")
        parts = asked(return_dense, return_sparse, return_colbert_vecs)
        request = self.request(parts, mcls=mcls)
        check_several(texts)
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
        queries, documents = check_pairs(pairs)
        query_rows, distinct_queries = distinct(queries)
        document_rows, distinct_documents = distinct(documents)
        encode = partial(self._encode, parts=tuple(PARTS), show_progress=False)
        scores = pair_scores(
            encode("query", distinct_queries, max_length=query_max_length or max_length),
            encode("document", distinct_documents, max_length=max_length),
            query_rows,
            document_rows,
            weights,
        )
        return {key: value.tolist() for key, value in scores.items()}

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Name everything that changes the representations of documents.

        Equal for copies of a checkpoint, wherever they lie. Device and data type do not count, for
        they change vectors only by rounding; int8, which changes them more, does.

        Args:
            parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``, those that matter.
            queries: The instruction of queries counts too.

        Returns:
            ``"m3-"`` and 16 hexadecimal digits.
        """
        return options_fingerprint(self.model.fingerprint, self.options, parts, queries=queries)

    def count_tokens(self, texts: Sequence[str], limit: int | None = None) -> list[int]:
        """Count the tokens of texts, without special tokens and instructions.

        Args:
            texts: The texts.
            limit: Of longer texts it is enough to know that they are: any number above it.

        Returns:
            One number a text.

        Raises:
            TypeError: A text is no string.
            ValueError: A text holds a lone surrogate.
        """
        checked = check_texts(texts)
        most = max(map(len, checked), default=0) if limit is None else limit
        return [len(ids) for ids in self.model.tokenizer.content_ids(checked, most)]

    def decode_weights(self, weights: Mapping[int, float]) -> dict[str, float]:
        """Show lexical weights with token texts in place of ids.

        Args:
            weights: ``{token id: weight}``; FlagEmbedding's string keys will do.

        Returns:
            ``{token text: weight}``. Where two ids have the same text (one at the start of a
            word, one within), the larger weight stands.

        Raises:
            TypeError: These are not the weights of one text.
            ValueError: A token id is none of the model's.
        """
        if not isinstance(weights, Mapping):
            raise TypeError(
                f"decode_weights takes the weights of one text; got {type(weights).__name__}: "
                "pass reps.lexical_weights[0], or one after the other"
            )
        decoded: dict[str, float] = {}
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
