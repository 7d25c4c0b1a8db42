"""The encoder: the only place that composes instructions, tokens, network and heads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from m3_core.encoding import EncoderBase, Role
from m3_core.instructions import choose_instructions
from m3_core.model import EncoderOptions, Model
from m3_core.scoring import pair_scores
from m3_core.texts import check_pairs, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from m3_core.checkpoint import Pooling
    from m3_core.representations import Representations


class Encoder(EncoderBase):
    """A loaded model that turns texts into dense vectors, lexical weights and multi-vectors.

    Made by ``Encoder.from_pretrained``. Safe under threads: calls share nothing but the network,
    which computes one batch at a time.
    """

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
        model = Model.load(
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
            model,
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
        model: Model,
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
            max_length: As of ``from_pretrained``.
            query_instruction: As there.
            document_instruction: As there.
            pooling: As there.
            task: As there.
            **options: Other fields of ``EncoderOptions``.

        Returns:
            The encoder.
        """
        checkpoint = model.checkpoint
        query, document = choose_instructions(
            model.known, checkpoint.prompts, query_instruction, document_instruction, task
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
        )

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
        return type(self)(self.model, replace(self.options, **changes))

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

    async def aencode_queries(self, texts: Iterable[str], **options: Any) -> Representations:
        """Do ``encode_queries`` off the event loop, with its arguments and results."""
        return await self.run_async(self.encode_queries, texts, **options)

    async def aencode_documents(self, texts: Iterable[str], **options: Any) -> Representations:
        """Do ``encode_documents`` off the event loop, with its arguments and results."""
        return await self.run_async(self.encode_documents, texts, **options)

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
            texts: Any iterable; it is read one batch ahead of what was yielded.
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
