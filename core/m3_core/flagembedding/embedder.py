"""What ``BGEM3FlagModel`` and ``FlagModel`` share: construction, instructions, one encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

from m3_core.encoder import asked, shared_encoder
from m3_core.flagembedding.options import (
    LengthLimit,
    detailed_instruct,
    dtype_name,
    one_device,
)
from m3_core.flagembedding.surface import Surface
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.encoder import Encoder, RepresentationCollector
    from m3_core.network import LoadedModel, Pooling, TokenBatch
    from m3_core.representations import Representations

_POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "last_token": "last"}
_NAMES = {pooling: name for name, pooling in _POOLINGS.items()}

# FlagEmbedding takes any keyword and makes an attribute of it. These mean something, to the
# classes here or to one of its own that takes the same arguments; others are likely slips.
_KEYWORDS = (
    "passage_instruction_for_retrieval",
    "passage_instruction_format",
    "device",
    "colbert_dim",
    "return_dense",
    "return_sparse",
    "return_colbert_vecs",
    "convert_to_numpy",
)


class Instruction(TypedDict):
    """What is put before texts, and how; nothing if the instruction is ``None``."""

    instruction: str | None
    instruction_format: str | None


class EmbedderSettings(Surface):
    """FlagEmbedding's settings of an embedder, which may be changed as attributes.

    Args:
        model_name_or_path: A folder or a repository of the hub.
        normalize_embeddings: Scale dense and multi-vectors to length 1.
        use_fp16: Compute in the half type that the device has instructions for, if any.
        use_bf16: Compute in bfloat16; in float32 on a CPU without instructions for it.
        query_instruction_for_retrieval: Put before queries; nothing if ``None``.
        query_instruction_format: How, with ``{}`` for the instruction and ``{}`` for the query.
        devices: One device; the best there is if ``None``.
        pooling_method: ``"cls"``, ``"mean"`` or ``"last_token"``, whatever the checkpoint says;
            ``None`` for what it says, and ``"cls"`` where it says nothing.
        batch_size: Without effect: batches are filled by tokens.
        query_max_length: Tokens a query at most.
        passage_max_length: Tokens a document at most.
        truncate_dim: Keep so many leading values of dense and multi-vectors.
        **kwargs: ``passage_instruction_for_retrieval`` and ``passage_instruction_format``, put
            before documents; ``device``, the older name of ``devices``.

    Raises:
        TypeError: There is no such option.
        ValueError: An option does not fit the model.
    """

    DEFAULT_POOLING_METHOD = "cls"

    target_devices: list[str]

    def __init__(
        self,
        model_name_or_path: str,
        *,
        normalize_embeddings: bool,
        use_fp16: bool,
        use_bf16: bool,
        query_instruction_for_retrieval: str | None,
        query_instruction_format: str,
        devices: str | int | Sequence[str] | Sequence[int] | None,
        pooling_method: str | None,
        batch_size: int,
        query_max_length: int,
        passage_max_length: int,
        truncate_dim: int | None,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(kwargs.keys() - set(_KEYWORDS))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(map(repr, unknown))}: beside its "
                f"signature it takes {', '.join(_KEYWORDS)}"
            )
        self._device = one_device(kwargs.get("device") if devices is None else devices)
        self._dtype = dtype_name(use_fp16=use_fp16, use_bf16=use_bf16, device=self._device)
        self.model_name_or_path = model_name_or_path
        self.normalize_embeddings = normalize_embeddings
        self.use_fp16 = use_fp16
        self.use_bf16 = use_bf16
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.pooling_method = pooling_method
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.truncate_dim = truncate_dim
        self.kwargs = kwargs

    @staticmethod
    def get_detailed_instruct(instruction_format: str, instruction: str, sentence: str) -> str:
        """Put an instruction and a text into a format; see ``options.detailed_instruct``."""
        return detailed_instruct(instruction_format, instruction, sentence)

    def stop_self_pool(self) -> None:
        """Do nothing: there is no pool of processes. ``encoder.close()`` frees the memory."""

    @property
    def _query_instruction(self) -> Instruction:
        return {
            "instruction": self.query_instruction_for_retrieval,
            "instruction_format": self.query_instruction_format,
        }

    @property
    def _passage_instruction(self) -> Instruction:
        return {
            "instruction": self.kwargs.get("passage_instruction_for_retrieval"),
            "instruction_format": self.kwargs.get("passage_instruction_format", "{}{}"),
        }

    @staticmethod
    def _instructed(
        texts: str | Iterable[str], instruction: str | None, instruction_format: str | None
    ) -> list[str]:
        # Checked before formatting, which would make a text of anything.
        checked = check_texts([texts] if isinstance(texts, str) else texts)
        if instruction is None:
            return checked
        template = "{}{}" if instruction_format is None else instruction_format
        return [detailed_instruct(template, instruction, text) for text in checked]


class Embedder(EmbedderSettings):
    """A loaded encoder with FlagEmbedding's settings.

    All objects of one model, device and data type share its weights, with each other and with
    ``m3_core.shared_encoder``.

    Args:
        model_name_or_path: A folder or a repository of the hub.
        trust_remote_code: Run model code that the checkpoint brings.
        cache_dir: Where downloads are kept.
        **settings: As of ``EmbedderSettings``.

    Raises:
        ValueError: An option does not fit the model.
        M3Error: The model cannot be loaded.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        trust_remote_code: bool,
        cache_dir: str | None,
        **settings: Any,
    ) -> None:
        super().__init__(model_name_or_path, **settings)
        self._shared = shared_encoder(
            model_name_or_path,
            device=self._device,
            dtype=self._dtype,
            cache_folder=cache_dir,
            trust_remote_code=trust_remote_code,
            query_instruction="",
            document_instruction="",
        )
        self.target_devices = [str(self._shared.device)]
        checkpoint = self._shared.model.checkpoint
        self._limit = LengthLimit(str(model_name_or_path), checkpoint.positions)
        if self.pooling_method is None:
            # FlagEmbedding's default, whatever the checkpoint, would make nonsense of its vectors.
            self.pooling_method = (
                self.DEFAULT_POOLING_METHOD
                if checkpoint.pooling is None
                else _NAMES[checkpoint.pooling]
            )
        # Says at once what does not fit.
        _ = self.encoder

    @property
    def encoder(self) -> Encoder:
        """The core's encoder with the present settings, without instructions."""
        if self.pooling_method is None or self.pooling_method not in _POOLINGS:
            raise ValueError(
                f"pooling_method {self.pooling_method!r} is none of "
                f"{', '.join(map(repr, _POOLINGS))}"
            )
        return self._shared.with_options(
            normalize=self.normalize_embeddings,
            truncate_dim=self.truncate_dim,
            pooling=_POOLINGS[self.pooling_method],
        )

    @property
    def _loaded(self) -> LoadedModel:
        return self._shared.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.encoder!r})"

    def _encode(
        self,
        texts: str | Iterable[str],
        max_length: int,
        instruction: str | None,
        instruction_format: str | None,
        *,
        dense: bool = True,
        sparse: bool = False,
        colbert: bool = False,
    ) -> tuple[Representations, TokenBatch]:
        checked = self._instructed(texts, instruction, instruction_format)
        encoder = self.encoder
        request = encoder.request(asked(dense, sparse, colbert))
        model = encoder.model
        limit = model.check_length(min(max_length, self._limit.positions))
        tokens = model.tokenizer.encode(checked, limit)
        self._limit.say(max_length, int(tokens.truncated.sum()), len(checked))
        work = encoder.work(tokens, request)
        model.engine.submit(work).wait()
        return cast("RepresentationCollector", work.collector).result(), tokens
