"""FlagEmbedding's ``FlagLLMModel`` and ``FlagICLModel``: dense vectors of decoders.

Source: FlagEmbedding 1.4.2, ``inference/embedder/decoder_only/{base,icl}.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.errors import UnsupportedModelError
from m3_core.flagembedding.decoder_model import encode, shared_decoder
from m3_core.flagembedding.dense import DenseCalls
from m3_core.flagembedding.options import LengthLimit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Devices = str | int | Sequence[str] | Sequence[int] | None


class FlagLLMModel(DenseCalls):
    """bge-multilingual-gemma2 and other decoders whose last token is the text's vector.

    ``EmbedderSettings`` says what the arguments mean. A checkpoint that needs code of its own is
    refused whatever ``trust_remote_code`` says, and so is another ``pooling_method`` than
    ``"last_token"``. ``cache_dir`` is where downloads are kept; ``convert_to_numpy=False`` gives
    tensors on the model's device, not arrays.
    """

    DEFAULT_POOLING_METHOD = "last_token"

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "Instruct: {}\nQuery: {}",
        devices: Devices = None,
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        convert_to_numpy: bool = True,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        pooling = kwargs.pop("pooling_method", "last_token")
        if pooling != "last_token":
            raise ValueError(f"pooling_method is {pooling!r}; decoders have 'last_token' only")
        super().__init__(
            model_name_or_path,
            normalize_embeddings=normalize_embeddings,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_retrieval=query_instruction_for_retrieval,
            query_instruction_format=query_instruction_format,
            devices=devices,
            pooling_method=pooling,
            batch_size=batch_size,
            query_max_length=query_max_length,
            passage_max_length=passage_max_length,
            truncate_dim=truncate_dim,
            **kwargs,
        )
        self.convert_to_numpy = convert_to_numpy
        self._model = shared_decoder(
            model_name_or_path, device=self._device, dtype=self._dtype, cache_folder=cache_dir
        )
        checkpoint = self._model.checkpoint
        if trust_remote_code and "AutoModel" in (checkpoint.config.get("auto_map") or {}):
            raise UnsupportedModelError(
                f"{checkpoint.name!r} brings model code, and trust_remote_code asks to run it; "
                "decoders here run transformers' code only: load it with sentence-transformers"
            )
        self.target_devices = [str(self._model.device)]
        self._limit = LengthLimit(str(model_name_or_path), checkpoint.positions)

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> Any:
        """Encode texts as they are.

        Args:
            sentences: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a text at most; ``passage_max_length`` if ``None``.
            convert_to_numpy: Give arrays; as constructed if ``None``.
            instruction: Put before each text.
            instruction_format: How, with ``{}`` for the instruction and ``{}`` for the text.
            pad_to_multiple_of: Without effect: nothing is padded.

        Returns:
            Shape: (texts, dim), or (dim,) for a single text. Dtype: float32.
        """
        del pad_to_multiple_of
        return super().encode(
            sentences,
            batch_size,
            max_length,
            convert_to_numpy,
            instruction=instruction,
            instruction_format=instruction_format,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name_or_path!r}, {self.target_devices[0]!r})"

    def _vectors(self, texts: list[str], max_length: int) -> NDArray[np.float32]:
        tokens = self._model.tokenizer.encode(texts, min(max_length, self._limit.positions))
        self._limit.say(max_length, int(tokens.truncated.sum()), len(texts))
        return encode(
            self._model, tokens, normalize=self.normalize_embeddings, truncate_dim=self.truncate_dim
        )


class FlagICLModel(FlagLLMModel):
    """bge-en-icl: queries come after examples of the task and end in a suffix.

    The arguments are those of ``FlagLLMModel`` and: ``suffix``, put after queries;
    ``examples_for_task``, dicts with ``"instruct"``, ``"query"`` and ``"response"``; and
    ``examples_instruction_format``, how the three are put together. ``query_max_length`` counts
    a query's tokens without the examples.
    """

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "<instruct>{}\n<query>{}",
        suffix: str = "\n<response>",
        devices: Devices = None,
        examples_for_task: Sequence[Mapping[str, str]] | None = None,
        examples_instruction_format: str = "<instruct>{}\n<query>{}\n<response>{}",
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
            trust_remote_code=trust_remote_code,
            cache_dir=cache_dir,
            batch_size=batch_size,
            query_max_length=query_max_length,
            passage_max_length=passage_max_length,
            convert_to_numpy=convert_to_numpy,
            truncate_dim=truncate_dim,
            **kwargs,
        )
        self.suffix = suffix
        self.examples_for_task = examples_for_task
        self.examples_instruction_format = examples_instruction_format
        self.prefix = ""
        self.set_examples()

    @staticmethod
    def get_detailed_example(
        instruction_format: str, instruction: str | None, query: str, response: str
    ) -> str:
        """Put an example together.

        Args:
            instruction_format: With three ``{}``.
            instruction: The first of them.
            query: The second.
            response: The third.

        Returns:
            The example.
        """
        return instruction_format.replace("\\n", "\n").format(instruction, query, response)

    def set_examples(self, examples_for_task: Sequence[Mapping[str, str]] | None = None) -> None:
        """Put examples before all queries from now on.

        Args:
            examples_for_task: The examples; those of the constructor if ``None``.
        """
        given = self.examples_for_task if examples_for_task is None else examples_for_task
        if given is None:
            self.prefix = ""
            return
        examples = [
            self.get_detailed_example(
                self.examples_instruction_format,
                example.get("instruct", self.query_instruction_for_retrieval),
                example.get("query", ""),
                example.get("response", ""),
            )
            for example in given
        ]
        self.prefix = "\n\n".join(examples) + "\n\n"

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode queries after the examples, with their instruction and the suffix.

        Args:
            queries: Texts, or a single one.
            batch_size: Without effect.
            max_length: Tokens a query at most, without the examples; ``query_max_length`` if
                ``None``.
            convert_to_numpy: Give arrays; as constructed if ``None``.
            **kwargs: ``pad_to_multiple_of``, without effect: nothing is padded.

        Returns:
            As of ``encode``.

        Raises:
            TypeError: There is no such option.
            ValueError: The length leaves no room for the query.
        """
        del batch_size
        unknown = sorted(kwargs.keys() - {"pad_to_multiple_of"})
        if unknown:
            raise TypeError(f"encode_queries has no option {', '.join(map(repr, unknown))}")
        length = self.query_max_length if max_length is None else max_length
        texts = self._instructed(queries, **self._query_instruction)
        tokenizer, positions = self._model.tokenizer, self._limit.positions
        marks = tokenizer.content_ids(["<s>", f"{self.suffix}</s>"], len(self.suffix) + 9)
        room = min(length, positions) - sum(map(len, marks))
        if room < 1:
            raise ValueError(f"max_length is {length}; the suffix leaves no room for the query")
        ids = tokenizer.content_ids(texts, room)
        self._limit.say(length, sum(len(row) > room for row in ids), len(texts))
        # As there: what was cut becomes text again and is tokenised with what surrounds it.
        whole = [self.prefix + tokenizer.decode(row[:room]) + self.suffix for row in ids]
        around = tokenizer.content_ids([self.prefix, self.suffix], positions)
        limit = (sum(map(len, around)) + length + 8) // 8 * 8 + 8
        tokens = tokenizer.encode(whole, min(limit, positions))
        if cut := int(tokens.truncated.sum()):
            self._limit.say(limit, cut, len(texts))
        vectors = encode(
            self._model, tokens, normalize=self.normalize_embeddings, truncate_dim=self.truncate_dim
        )
        return self._given(vectors, convert_to_numpy, single=isinstance(queries, str))
