"""FlagEmbedding's ``FlagModel``: dense vectors of the v1 and v1.5 models."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from m3_core.flagembedding.embedder import Embedder, EmbedderSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class DenseCalls(EmbedderSettings):
    """The calls of the classes that give dense vectors."""

    convert_to_numpy: bool

    @abstractmethod
    def _vectors(self, texts: list[str], max_length: int) -> NDArray[np.float32]:
        """Encode texts, their instruction put before them. Shape: (texts, dim)."""

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode queries with the query instruction, if one was given.

        Args:
            queries: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a query at most; ``query_max_length`` if ``None``.
            convert_to_numpy: Give arrays; as constructed if ``None``.
            **kwargs: As of ``encode``.

        Returns:
            As of ``encode``.
        """
        length = self.query_max_length if max_length is None else max_length
        return self.encode(
            queries, batch_size, length, convert_to_numpy, **self._query_instruction, **kwargs
        )

    def encode_corpus(
        self,
        corpus: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode documents with ``passage_instruction_for_retrieval``, if it was given.

        Args:
            corpus: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a document at most; ``passage_max_length`` if ``None``.
            convert_to_numpy: Give arrays; as constructed if ``None``.
            **kwargs: As of ``encode``.

        Returns:
            As of ``encode``.
        """
        return self.encode(
            corpus, batch_size, max_length, convert_to_numpy, **self._passage_instruction, **kwargs
        )

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str | None = None,
    ) -> Any:
        """Encode texts as they are.

        Args:
            sentences: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a text at most; ``passage_max_length`` if ``None``.
            convert_to_numpy: Give arrays; as constructed if ``None``.
            instruction: Put before each text.
            instruction_format: How, with ``{}`` for the instruction and ``{}`` for the text.

        Returns:
            Shape: (texts, dim), or (dim,) for a single text. Dtype: float32.

        Raises:
            TypeError: A text is no string.
            ValueError: ``max_length`` does not fit the model.
        """
        del batch_size
        texts = self._instructed(sentences, instruction, instruction_format)
        length = self.passage_max_length if max_length is None else max_length
        found = self._vectors(texts, length)
        return self._given(found, convert_to_numpy, single=isinstance(sentences, str))

    def _given(
        self, found: NDArray[np.float32], convert_to_numpy: bool | None, *, single: bool
    ) -> Any:
        vectors = found[0] if single else found
        as_numpy = self.convert_to_numpy if convert_to_numpy is None else convert_to_numpy
        return vectors if as_numpy else torch.tensor(vectors, device=self.target_devices[0])


class FlagModel(DenseCalls, Embedder):
    """A dense BGE model behind FlagEmbedding's interface.

    ``EmbedderSettings`` says what the arguments mean, ``Embedder`` what ``trust_remote_code`` and
    ``cache_dir`` do. ``convert_to_numpy=False`` gives tensors on the model's device, not arrays.
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
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        convert_to_numpy: bool = True,
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
        self.convert_to_numpy = convert_to_numpy

    def _vectors(self, texts: list[str], max_length: int) -> NDArray[np.float32]:
        vectors = self._encode(texts, max_length, None, None)[0].dense_vecs
        assert vectors is not None
        return vectors
