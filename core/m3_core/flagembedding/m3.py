"""FlagEmbedding's ``BGEM3FlagModel``: dictionaries of dense, lexical and multi-vector results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.flagembedding.m3_scores import M3Scores
from m3_core.flagembedding.results import as_dict

if TYPE_CHECKING:
    from collections.abc import Sequence


class BGEM3FlagModel(M3Scores):
    """BGE-M3 behind FlagEmbedding's interface.

    ``EmbedderSettings`` says what the arguments mean, ``Embedder`` what ``trust_remote_code`` and
    ``cache_dir`` do. Of this class alone are ``colbert_dim``, the width of the multi-vectors, which
    must be the checkpoint's (or -1), and ``return_dense``, ``return_sparse`` and
    ``return_colbert_vecs``, what a call gives that does not say.
    """

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: str | int | Sequence[str] | Sequence[int] | None = None,
        pooling_method: str = "cls",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        colbert_dim: int = -1,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model_name_or_path,
            normalize_embeddings=normalize_embeddings,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_retrieval=query_instruction_for_retrieval,
            query_instruction_format=query_instruction_format,
            devices=devices,
            pooling_method=pooling_method,
            trust_remote_code=trust_remote_code,
            cache_dir=cache_dir,
            batch_size=batch_size,
            query_max_length=query_max_length,
            passage_max_length=passage_max_length,
            truncate_dim=truncate_dim,
            **kwargs,
        )
        width = self.encoder.colbert_dimension
        if colbert_dim > 0 and width and colbert_dim != width:
            raise ValueError(
                f"colbert_dim is {colbert_dim}, but the multi-vectors of {model_name_or_path!r} "
                f"have {width} values: leave it at -1"
            )
        self.return_dense = return_dense
        self.return_sparse = return_sparse
        self.return_colbert_vecs = return_colbert_vecs

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Encode queries with the query instruction, if one was given.

        Args:
            queries: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a query at most; ``query_max_length`` if ``None``.
            return_dense: Give dense vectors; as constructed if ``None``.
            return_sparse: Give lexical weights, likewise.
            return_colbert_vecs: Give multi-vectors, likewise.
            **kwargs: As of ``encode``.

        Returns:
            As of ``encode``.
        """
        length = self.query_max_length if max_length is None else max_length
        return self.encode(
            queries,
            batch_size,
            length,
            return_dense,
            return_sparse,
            return_colbert_vecs,
            **self._query_instruction,
            **kwargs,
        )

    def encode_corpus(
        self,
        corpus: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Encode documents with ``passage_instruction_for_retrieval``, if it was given.

        Args:
            corpus: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a document at most; ``passage_max_length`` if ``None``.
            return_dense: Give dense vectors; as constructed if ``None``.
            return_sparse: Give lexical weights, likewise.
            return_colbert_vecs: Give multi-vectors, likewise.
            **kwargs: As of ``encode``.

        Returns:
            As of ``encode``.
        """
        return self.encode(
            corpus,
            batch_size,
            max_length,
            return_dense,
            return_sparse,
            return_colbert_vecs,
            **self._passage_instruction,
            **kwargs,
        )

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str | None = None,
        convert_to_numpy: bool | None = None,
    ) -> dict[str, Any]:
        """Encode texts as they are.

        Args:
            sentences: Texts, or a single one, whose results then come without a list.
            batch_size: Without effect.
            max_length: Tokens a text at most; ``passage_max_length`` if ``None``.
            return_dense: Give dense vectors; as constructed if ``None``.
            return_sparse: Give lexical weights, likewise.
            return_colbert_vecs: Give multi-vectors, likewise.
            instruction: Put before each text.
            instruction_format: How, with ``{}`` for the instruction and ``{}`` for the text.
            convert_to_numpy: Without effect, as there.

        Returns:
            ``"dense_vecs"``: shape (texts, dim), float32. ``"lexical_weights"``: a list of
            ``{token id as str: weight}`` in the order of the text. ``"colbert_vecs"``: a list of
            arrays of shape (tokens, dim). ``None`` for what was not asked for.

        Raises:
            TypeError: A text is no string.
            ValueError: Nothing was asked for, or ``max_length`` does not fit the model.
            MissingRepresentationError: The checkpoint has no heads for what was asked.
        """
        del batch_size, convert_to_numpy
        found, tokens = self._encode(
            sentences,
            self.passage_max_length if max_length is None else max_length,
            instruction,
            instruction_format,
            dense=self.return_dense if return_dense is None else return_dense,
            sparse=self.return_sparse if return_sparse is None else return_sparse,
            colbert=(
                self.return_colbert_vecs if return_colbert_vecs is None else return_colbert_vecs
            ),
        )
        return as_dict(found, tokens, single=isinstance(sentences, str))
