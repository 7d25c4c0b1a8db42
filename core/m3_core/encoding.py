"""What every encoder is made of: a loaded model, options, and the steps between them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from tqdm.auto import tqdm

from m3_core.errors import MissingRepresentationError
from m3_core.execution import run_in_executor
from m3_core.model import EncoderOptions, Model, shared_model
from m3_core.pipeline import Request
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch

    from m3_core.representations import Representations
    from m3_core.tokens import TokenBatch

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound="EncoderBase")
Role = Literal["query", "document"]

# M3-Embedding (arXiv 2402.03216), "Multiple CLS": one CLS before every 256 tokens.
MCLS_TOKENS = 256


class EncoderBase:
    """A model with options; ``Encoder`` adds the public calls.

    Args:
        model: The loaded checkpoint.
        options: What changes the results without changing the weights.

    Raises:
        ValueError: An option does not fit the model.
    """

    def __init__(self, model: Model, options: EncoderOptions) -> None:
        model.check_length(options.max_length)
        width = model.pipeline.backbone.hidden_size
        if options.truncate_dim is not None and not 0 < options.truncate_dim <= width:
            raise ValueError(
                f"truncate_dim is {options.truncate_dim}; the vectors have {width} values"
            )
        if options.pooling not in ("cls", "mean", "last"):
            raise ValueError(f"pooling {options.pooling!r} is none of 'cls', 'mean', 'last'")
        self.model = model
        self.options = options

    @property
    def name(self) -> str:
        """The name that the model was loaded by."""
        return self.model.checkpoint.name

    @property
    def representations(self) -> frozenset[str]:
        """What the model gives: of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        has_heads = self.model.pipeline.colbert_dim > 0
        return frozenset({"dense", "sparse", "colbert"} if has_heads else {"dense"})

    @property
    def dimension(self) -> int:
        """Width of the dense vectors."""
        return self.options.truncate_dim or self.model.pipeline.backbone.hidden_size

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

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.pipeline.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """In what data type the network computes."""
        return self.model.pipeline.backbone.dtype

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self.model.closed

    def close(self) -> None:
        """Let go of the network and its memory; further calls raise ``ClosedError``."""
        self.model.close()

    def decode_weights(self, weights: Mapping[int, float]) -> dict[str, float]:
        """Show lexical weights with token texts in place of ids.

        Args:
            weights: ``{token id: weight}``; FlagEmbedding's string keys will do.

        Returns:
            ``{token text: weight}``. Where two ids have the same text (one at the start of a
            word, one within), the larger weight stands.
        """
        decoded: dict[str, float] = {}
        for token_id, weight in weights.items():
            text = self.model.tokenizer.id_to_token(int(token_id))
            decoded[text] = max(float(weight), decoded.get(text, 0.0))
        return decoded

    def __enter__(self: E) -> E:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run_async(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the encoder's few threads, with the caller's context."""
        return await run_in_executor(self.model.executor, function, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Weights do not travel: the other process loads them once for all that arrive there.
        return _reload, (type(self), dict(self.model.source), self.options)

    def __copy__(self) -> EncoderBase:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> EncoderBase:
        return self

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

    def _request(self, *, dense: bool, sparse: bool, colbert: bool, mcls: bool = False) -> Request:
        flags = {"dense": dense, "sparse": sparse, "colbert": colbert}
        asked = {name for name, wanted in flags.items() if wanted}
        if not asked:
            raise ValueError(
                "nothing to compute: set return_dense, return_sparse or return_colbert_vecs"
            )
        absent = sorted(asked - self.representations)
        if absent:
            raise MissingRepresentationError(
                f"{' and '.join(absent)} asked for, but {self.name!r} gives only "
                f"{', '.join(sorted(self.representations))}: load an M3 checkpoint"
            )
        options = self.options
        if mcls and options.pooling != "cls":
            raise ValueError(
                f"mcls averages CLS states, but {self.name!r} pools {options.pooling!r}"
            )
        return Request(
            dense=bool(dense),
            sparse=bool(sparse),
            colbert=bool(colbert),
            pooling=options.pooling,
            normalize=options.normalize,
            truncate_dim=options.truncate_dim,
            marker_every=MCLS_TOKENS + 1 if mcls else None,
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
        pipeline = self.model.pipeline
        tokens = self._tokenize(role, check_texts(texts), request, max_length)
        if not show_progress:
            return pipeline.run(tokens, request)
        with tqdm(total=len(tokens.lengths), desc="Encoding", unit="text") as bar:
            return pipeline.run(tokens, request, bar.update)

    def _tokenize(
        self, role: Role, texts: list[str], request: Request, max_length: int | None
    ) -> TokenBatch:
        options = self.options
        queries = role == "query"
        instruction = options.query_instruction if queries else options.document_instruction
        if instruction:
            texts = [instruction + text for text in texts]
        every = None if request.marker_every is None else request.marker_every - 1
        limit = options.max_length if max_length is None else max_length
        return self.model.tokenize(texts, limit, every)

    def _stream(
        self,
        texts: Iterator[str],
        batch_size: int,
        role: Role,
        request: Request,
        max_length: int | None,
    ) -> Iterator[Representations]:
        def read(position: int) -> TokenBatch | None:
            part = list(islice(texts, batch_size))
            if not part:
                return None
            return self._tokenize(role, check_texts(part, position), request, max_length)

        with ThreadPoolExecutor(1, thread_name_prefix="m3-stream") as ahead:
            position = 0
            upcoming = ahead.submit(read, position)
            while (tokens := upcoming.result()) is not None:
                position += len(tokens.lengths)
                upcoming = ahead.submit(read, position)
                yield self.model.pipeline.run(tokens, request)


def _reload(
    kind: type[EncoderBase], source: dict[str, Any], options: EncoderOptions
) -> EncoderBase:
    return kind(shared_model(**source), options)
