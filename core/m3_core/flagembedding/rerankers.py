"""``FlagReranker``, its three siblings for decoders, and ``FlagAutoReranker``.

Signatures and defaults are FlagEmbedding 1.4.2's. For the decoders it forces float16 weights
where neither ``use_fp16`` nor ``use_bf16`` is set; here that means float32.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from m3_core.flagembedding.reranker import PairScorer
from m3_core.rerankers import reranker_kind_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Devices = str | int | Sequence[str] | Sequence[int] | None


class FlagReranker(PairScorer):
    """bge-reranker-base, -large and -v2-m3. Arguments: see ``PairScorer``."""

    kinds = ("cross-encoder",)

    def __init__(
        self,
        model_name_or_path: str,
        use_fp16: bool = False,
        query_instruction_for_rerank: str | None = None,
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str | None = None,
        passage_instruction_format: str = "{}{}",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        devices: Devices = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        del trust_remote_code
        super().__init__(
            model_name_or_path,
            use_fp16=use_fp16,
            query_instruction_for_rerank=query_instruction_for_rerank,
            query_instruction_format=query_instruction_format,
            passage_instruction_for_rerank=passage_instruction_for_rerank,
            passage_instruction_format=passage_instruction_format,
            cache_dir=cache_dir,
            devices=devices,
            batch_size=batch_size,
            query_max_length=query_max_length,
            max_length=max_length,
            normalize=normalize,
            settings={},
            **kwargs,
        )


class FlagLLMReranker(PairScorer):
    """bge-reranker-v2-gemma. Arguments: see ``PairScorer``; ``prompt`` is the question."""

    kinds = ("llm",)

    def __init__(
        self,
        model_name_or_path: str,
        peft_path: str | None = None,
        use_fp16: bool = False,
        use_bf16: bool = False,
        query_instruction_for_rerank: str = "A: ",
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str = "B: ",
        passage_instruction_format: str = "{}{}",
        cache_dir: str | None = None,
        trust_remote_code: bool = False,
        devices: Devices = None,
        prompt: str | None = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        del trust_remote_code
        super().__init__(
            model_name_or_path,
            peft_path=peft_path,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_rerank=query_instruction_for_rerank,
            query_instruction_format=query_instruction_format,
            passage_instruction_for_rerank=passage_instruction_for_rerank,
            passage_instruction_format=passage_instruction_format,
            cache_dir=cache_dir,
            devices=devices,
            batch_size=batch_size,
            query_max_length=query_max_length,
            max_length=max_length,
            normalize=normalize,
            settings={"prompt": prompt},
            **kwargs,
        )


class LayerWiseFlagLLMReranker(PairScorer):
    """bge-reranker-v2-minicpm-layerwise; scores after ``cutoff_layers``, by default the last."""

    kinds = ("layerwise",)

    def __init__(
        self,
        model_name_or_path: str,
        peft_path: str | None = None,
        use_fp16: bool = False,
        use_bf16: bool = False,
        query_instruction_for_rerank: str = "A: ",
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str = "B: ",
        passage_instruction_format: str = "{}{}",
        cache_dir: str | None = None,
        trust_remote_code: bool = False,
        devices: Devices = None,
        cutoff_layers: Sequence[int] | int | None = None,
        prompt: str | None = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        del trust_remote_code
        super().__init__(
            model_name_or_path,
            peft_path=peft_path,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_rerank=query_instruction_for_rerank,
            query_instruction_format=query_instruction_format,
            passage_instruction_for_rerank=passage_instruction_for_rerank,
            passage_instruction_format=passage_instruction_format,
            cache_dir=cache_dir,
            devices=devices,
            batch_size=batch_size,
            query_max_length=query_max_length,
            max_length=max_length,
            normalize=normalize,
            settings={"prompt": prompt, "cutoff_layers": cutoff_layers},
            **kwargs,
        )


class LightWeightFlagLLMReranker(PairScorer):
    """bge-reranker-v2.5-gemma2-lightweight; merges ``compress_ratio`` tokens of documents."""

    kinds = ("lightweight",)

    def __init__(
        self,
        model_name_or_path: str,
        peft_path: str | None = None,
        use_fp16: bool = False,
        use_bf16: bool = False,
        query_instruction_for_rerank: str = "A: ",
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str = "B: ",
        passage_instruction_format: str = "{}{}",
        cache_dir: str | None = None,
        trust_remote_code: bool = False,
        devices: Devices = None,
        cutoff_layers: Sequence[int] | int | None = None,
        compress_layers: Sequence[int] = (8,),
        compress_ratio: int = 1,
        prompt: str | None = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        del trust_remote_code
        super().__init__(
            model_name_or_path,
            peft_path=peft_path,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_rerank=query_instruction_for_rerank,
            query_instruction_format=query_instruction_format,
            passage_instruction_for_rerank=passage_instruction_for_rerank,
            passage_instruction_format=passage_instruction_format,
            cache_dir=cache_dir,
            devices=devices,
            batch_size=batch_size,
            query_max_length=query_max_length,
            max_length=max_length,
            normalize=normalize,
            settings={
                "prompt": prompt,
                "cutoff_layers": cutoff_layers,
                "compress_layers": compress_layers,
                "compress_ratio": compress_ratio,
            },
            **kwargs,
        )


_AnyReranker = (
    FlagReranker | FlagLLMReranker | LayerWiseFlagLLMReranker | LightWeightFlagLLMReranker
)
_CLASSES: Mapping[str, type[_AnyReranker]] = {
    "encoder-only-base": FlagReranker,
    "decoder-only-base": FlagLLMReranker,
    "decoder-only-layerwise": LayerWiseFlagLLMReranker,
    "decoder-only-lightweight": LightWeightFlagLLMReranker,
}


class FlagAutoReranker:
    """Chooses among the four classes; made by ``from_finetuned`` only."""

    def __init__(self) -> None:
        raise OSError("use FlagAutoReranker.from_finetuned(model_name_or_path)")

    @classmethod
    def from_finetuned(
        cls,
        model_name_or_path: str,
        model_class: str | Enum | None = None,
        use_fp16: bool = False,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> _AnyReranker:
        """Load a reranker with the class that fits its checkpoint, whatever its name.

        Args:
            model_name_or_path: A folder or a repository of the hub.
            model_class: ``"encoder-only-base"``, ``"decoder-only-base"``,
                ``"decoder-only-layerwise"`` or ``"decoder-only-lightweight"``; told from
                ``config.json`` if ``None``.
            use_fp16: As of ``PairScorer``.
            trust_remote_code: Without effect: code of a checkpoint is never run.
            **kwargs: Other arguments of the class.

        Returns:
            The loaded reranker.

        Raises:
            ValueError: There is no such class, or it does not fit the checkpoint.
            UnsupportedModelError: The checkpoint is no reranker.
        """
        del trust_remote_code
        if model_class is None:
            kind = reranker_kind_at(model_name_or_path, cache_folder=kwargs.get("cache_dir"))
            chosen = next(entry for entry in _CLASSES.values() if kind in entry.kinds)
        else:
            asked = model_class.value if isinstance(model_class, Enum) else model_class
            if asked not in _CLASSES:
                raise ValueError(
                    f"model_class {asked!r} is none of {', '.join(map(repr, _CLASSES))}"
                )
            chosen = _CLASSES[asked]
        return chosen(model_name_or_path, use_fp16=use_fp16, **kwargs)
