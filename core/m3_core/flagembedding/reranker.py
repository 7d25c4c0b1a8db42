"""What FlagEmbedding's four rerankers share: construction, instructions, one scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.flagembedding.options import (
    LengthLimit,
    detailed_instruct,
    dtype_name,
    one_device,
)
from m3_core.rerankers import Reranker
from m3_core.texts import check_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Keywords that FlagEmbedding makes attributes of and that mean something to one of its classes.
_KEYWORDS = ("device", "passage_max_length", "return_dense", "use_dataloader", "num_workers")
# Of compute_score: what FlagEmbedding takes there and what has no effect here.
_WITHOUT_EFFECT = ("batch_size", "device", "use_dataloader", "num_workers")


class PairScorer:
    """A loaded reranker with FlagEmbedding's settings, which may be changed as attributes.

    All objects of one model, device and data type share its weights.

    Args:
        model_name_or_path: A folder or a repository of the hub.
        use_fp16: Compute in the half type that the device has instructions for, if any.
        use_bf16: Compute in bfloat16; in float32 on a CPU without instructions for it.
        query_instruction_for_rerank: Put before queries; nothing if ``None``.
        query_instruction_format: How, with ``{}`` for the instruction and ``{}`` for the query.
        passage_instruction_for_rerank: Put before documents; nothing if ``None``.
        passage_instruction_format: How, likewise.
        cache_dir: Where downloads are kept.
        devices: One device; the best there is if ``None``.
        batch_size: Without effect: batches are filled by tokens.
        query_max_length: Tokens a query at most; three quarters of ``max_length`` if ``None``.
        max_length: Tokens a pair at most.
        normalize: Put scores through the sigmoid.
        peft_path: Refused: merge the adapter into the model and save it.
        settings: What only some kinds have: prompt, layers, compression.
        **kwargs: ``device``, the older name of ``devices``; others that FlagEmbedding's examples
            pass have no effect.

    Raises:
        TypeError: There is no such option.
        ValueError: An option does not fit the model.
        M3Error: The model cannot be loaded.
    """

    kinds: tuple[str, ...] = ()

    def __init__(
        self,
        model_name_or_path: str,
        *,
        use_fp16: bool,
        use_bf16: bool = False,
        query_instruction_for_rerank: str | None,
        query_instruction_format: str,
        passage_instruction_for_rerank: str | None,
        passage_instruction_format: str,
        cache_dir: str | None,
        devices: str | int | Sequence[str] | Sequence[int] | None,
        batch_size: int,
        query_max_length: int | None,
        max_length: int,
        normalize: bool,
        peft_path: str | None = None,
        settings: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        unknown = sorted(kwargs.keys() - set(_KEYWORDS))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(map(repr, unknown))}: beside its "
                f"signature it takes {', '.join(_KEYWORDS)}"
            )
        if peft_path is not None:
            raise ValueError(
                f"peft_path is {peft_path!r}; adapters are not applied here: merge it into the "
                "model with peft's merge_and_unload, save that and load its folder"
            )
        device = one_device(kwargs.get("device") if devices is None else devices)
        self.model_name_or_path = model_name_or_path
        self.use_fp16 = use_fp16
        self.use_bf16 = use_bf16
        self.query_instruction_for_rerank = query_instruction_for_rerank
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_rerank = passage_instruction_for_rerank
        self.passage_instruction_format = passage_instruction_format
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.max_length = max_length
        self.normalize = normalize
        self.settings = settings
        self.kwargs = kwargs
        self._shared = Reranker.shared(
            model_name_or_path,
            device=device,
            dtype=dtype_name(use_fp16=use_fp16, use_bf16=use_bf16, device=device),
            cache_folder=cache_dir,
            query_instruction="",
            document_instruction="",
        )
        if self._shared.kind not in self.kinds:
            raise ValueError(
                f"{model_name_or_path!r} is a reranker of kind {self._shared.kind!r}; "
                f"{type(self).__name__} serves {' and '.join(self.kinds)}: use FlagAutoReranker"
            )
        self.target_devices = [str(self._shared.device)]
        self._limit = LengthLimit(str(model_name_or_path), self._shared.model.checkpoint.positions)
        # Says at once what does not fit.
        self._reranker({})

    def compute_score(
        self, sentence_pairs: Iterable[tuple[str, str]] | tuple[str, str], **kwargs: Any
    ) -> list[float] | list[list[float]]:
        """Score pairs.

        Args:
            sentence_pairs: (query, document) pairs, or a single one.
            **kwargs: ``max_length``, ``query_max_length``, ``normalize`` and the settings of the
                class, for this call. ``batch_size`` and ``device`` have no effect.

        Returns:
            One score a pair, a list even for a single pair; with several cutoff layers one such
            list a layer, the first layer first.

        Raises:
            TypeError: An element is no pair of strings, or there is no such option.
            ValueError: An option does not fit the model.
        """
        given = {key: value for key, value in kwargs.items() if key not in _WITHOUT_EFFECT}
        normalize = given.pop("normalize", None)
        if _is_pair(sentence_pairs):
            sentence_pairs = [sentence_pairs]  # type: ignore[list-item]
        queries, documents = check_pairs(sentence_pairs)  # type: ignore[arg-type]
        pairs = list(
            zip(
                self._instructed(
                    queries, self.query_instruction_for_rerank, self.query_instruction_format
                ),
                self._instructed(
                    documents, self.passage_instruction_for_rerank, self.passage_instruction_format
                ),
                strict=True,
            )
        )
        scores = self._reranker(given).compute_layer_scores(
            pairs, self.normalize if normalize is None else normalize
        )
        return scores[0] if len(scores) == 1 else scores

    def stop_self_pool(self) -> None:
        """Do nothing: there is no pool of processes."""

    def get_detailed_instruct(
        self, instruction_format: str, instruction: str, sentence: str
    ) -> str:
        """Put an instruction and a text into a format; see ``options.detailed_instruct``."""
        return detailed_instruct(instruction_format, instruction, sentence)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._reranker({})!r})"

    def _reranker(self, given: dict[str, Any]) -> Reranker:
        """The core's reranker with the present settings, without instructions."""
        old = given.pop("compress_layer", None)
        if old is not None and "compress_layers" in self.settings:
            given["compress_layers"] = old
        allowed = {"max_length", "query_max_length", *self.settings}
        unknown = sorted(given.keys() - allowed)
        if unknown:
            raise TypeError(
                f"compute_score of {type(self).__name__} has no option "
                f"{', '.join(map(repr, unknown))}: it takes {', '.join(sorted(allowed))}"
            )
        present = {
            "max_length": self.max_length,
            "query_max_length": self.query_max_length,
            **self.settings,
            **{key: value for key, value in given.items() if value is not None},
        }
        asked = present["max_length"]
        present["max_length"] = self._limit.lowered(asked)
        if present["query_max_length"] is None and asked > present["max_length"]:
            # Of the length that was asked for, as there; the pair's own limit still holds.
            present["query_max_length"] = asked * 3 // 4
        layers = present.get("cutoff_layers")
        if layers is not None and not isinstance(layers, int):
            # FlagEmbedding gives the layers in the order of the network.
            present["cutoff_layers"] = sorted(set(layers))
        return self._shared.with_options(**present)

    @staticmethod
    def _instructed(texts: list[str], instruction: str | None, template: str) -> list[str]:
        if instruction is None:
            return texts
        return [detailed_instruct(template, instruction, text) for text in texts]


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )
