"""The reranker: scores of (query, document) pairs, whatever network computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3_core.ranking import select_best
from m3_core.rerankers.common import RerankerBase, changed_options, sigmoid
from m3_core.rerankers.loading import RerankerModel, shared_reranker_model
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import torch


SOURCE_DEFAULTS: Mapping[str, Any] = {
    "revision": None,
    "device": None,
    "dtype": "auto",
    "cache_folder": None,
    "token": None,
    "local_files_only": False,
    "token_budget": None,
}


class Reranker(RerankerBase):
    """A loaded model that scores how well a document answers a query.

    Made by ``Reranker.from_pretrained``, which tells from the checkpoint what kind it is:

    - ``cross-encoder``: bge-reranker-base, -large, -v2-m3. transformers runs the network.
    - ``llm``: bge-reranker-v2-gemma. transformers runs the network; the score is the logit of
      "Yes" after the prompt.
    - ``layerwise``: bge-reranker-v2-minicpm-layerwise, and ``lightweight``:
      bge-reranker-v2.5-gemma2-lightweight. The code that these two checkpoints bring was written
      for transformers 4 and does not run with 5. It is not used, so nothing remote is trusted:
      the networks are put together from transformers' own Llama and Gemma 2 layers.

    Safe under threads: calls share nothing but the network, which computes one batch at a time.
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
        query_max_length: int | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        cache_folder: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        token_budget: int | None = None,
        prompt: str | None = None,
        cutoff_layers: int | Sequence[int] | None = None,
        compress_layers: Sequence[int] | None = None,
        compress_ratio: int | None = None,
    ) -> Reranker:
        """Load a reranker from a local folder or the hub.

        Args:
            name: A folder, or a repository such as ``"BAAI/bge-reranker-v2-m3"``.
            revision: Branch, tag or commit of the repository.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; by default the best there is.
            dtype: ``"auto"`` is float16 on CUDA, bfloat16 on a CPU with instructions for it, else
                float32. ``"float32"`` gives reference numbers.
            max_length: Tokens a pair at most; 512 by default as in FlagEmbedding, up to 8192
                for v2-m3. A decoder's prompt comes on top of it.
            query_max_length: Tokens a query at most, without special tokens; by default three
                quarters of ``max_length``.
            query_instruction: Put before queries; by default nothing, ``"A: "`` for decoders.
            document_instruction: Put before documents; likewise, ``"B: "``.
            cache_folder: Where downloads are kept.
            token: Access token of the hub.
            local_files_only: Ask no server.
            trust_remote_code: Accepted as in ``Encoder``, but no model here needs it: code of
                the checkpoint is never run.
            token_budget: Tokens a batch at most; by default chosen from the device.
            prompt: The question put to a decoder; by default the one it was trained with.
            cutoff_layers: After which layers of a layerwise or lightweight model scores are
                taken; by default the last.
            compress_layers: Before which layers of a lightweight model a document's tokens are
                merged; by default ``[8]``.
            compress_ratio: How many tokens are merged into one; by default 1, so none.

        Returns:
            The reranker.

        Raises:
            CheckpointError: The files are absent, unreadable, incomplete or of another model.
            DeviceError: The device is absent or cannot compute in the data type.
            ValueError: An option does not fit the model.
        """
        del trust_remote_code
        source: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "token_budget": token_budget,
            "revision": revision,
            "cache_folder": cache_folder,
            "token": token,
            "local_files_only": local_files_only,
        }
        model = RerankerModel.load(name, **source)
        changes = {
            "max_length": max_length,
            "query_max_length": query_max_length,
            "query_instruction": query_instruction,
            "document_instruction": document_instruction,
            "prompt": prompt,
            "cutoff_layers": cutoff_layers,
            "compress_layers": compress_layers,
            "compress_ratio": compress_ratio,
        }
        return cls(model, changed_options(model.default_options, changes))

    @classmethod
    def shared(cls, name: str | Path, **options: Any) -> Reranker:
        """Load a reranker once for the whole process, or return one over the loaded weights.

        Args:
            name: As of ``from_pretrained``.
            **options: As there. Those that change scores but not weights may differ from one
                call to the next.

        Returns:
            A reranker; closing it closes all over the same weights, and the next is loaded anew.

        Raises:
            TypeError: ``from_pretrained`` has no such option.
            M3Error: The model cannot be loaded.
        """
        options.pop("trust_remote_code", None)
        source = {key: options.pop(key, value) for key, value in SOURCE_DEFAULTS.items()}
        model = shared_reranker_model(name=str(name), **source)
        return cls(model, changed_options(model.default_options, options))

    def with_options(self, **changes: Any) -> Reranker:
        """Make another reranker over the same loaded weights.

        Args:
            **changes: Fields of ``RerankerOptions``.

        Returns:
            The other reranker; closing either closes both.

        Raises:
            TypeError: There is no such option.
            ValueError: An option does not fit the model.
        """
        return type(self)(self.model, changed_options(self.options, changes))

    def compute_score(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[float]:
        """Score pairs; of several cutoff layers the last one named counts.

        Args:
            pairs: Queries with documents.
            normalize: Put each score through the sigmoid, into 0 to 1; else it is the raw logit.
            max_length: Tokens a pair at most, in this call.
            query_max_length: Tokens a query at most, in this call.
            show_progress: Show a progress bar.

        Returns:
            One score a pair, in their order; an empty list for no pairs.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: A text is no valid Unicode, or a length does not fit the model.
            NonFiniteError: A score is NaN or infinite.
            OutOfMemoryError: A single pair does not fit into memory.
        """
        scores = self._score(pairs, max_length, query_max_length, show_progress=show_progress)
        column = scores[:, -1]
        result: list[float] = (sigmoid(column) if normalize else column).tolist()
        return result

    def compute_layer_scores(
        self,
        pairs: Iterable[tuple[str, str]],
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        *,
        max_length: int | None = None,
        query_max_length: int | None = None,
        show_progress: bool = False,
    ) -> list[list[float]]:
        """Score pairs with each of the cutoff layers.

        Args:
            pairs: As of ``compute_score``; so are the other arguments and the errors.
            normalize: As there.
            max_length: As there.
            query_max_length: As there.
            show_progress: As there.

        Returns:
            One list of scores a layer, in the order of ``cutoff_layers``.
        """
        scores = self._score(pairs, max_length, query_max_length, show_progress=show_progress)
        result: list[list[float]] = (sigmoid(scores) if normalize else scores).T.tolist()
        return result

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        normalize: bool = False,  # noqa: FBT001, FBT002 (FlagEmbedding's flag)
        **options: Any,
    ) -> list[tuple[int, float]]:
        """Order documents by their score with a query.

        Args:
            query: The query.
            documents: The documents.
            top_n: How many to return at most; all if ``None``.
            normalize: As of ``compute_score``.
            **options: Its other arguments.

        Returns:
            (position among the documents, score), the best first; ties in the given order.

        Raises:
            ValueError: ``top_n`` is below 0. The other errors are ``compute_score``'s.
        """
        if top_n is not None and top_n < 0:
            raise ValueError(f"top_n must be at least 0; got {top_n}")
        (checked,) = check_texts([query])
        pairs = [(checked, document) for document in check_texts(documents)]
        scores = self.compute_score(pairs, normalize, **options)
        return select_best(scores, top_n)

    async def acompute_score(
        self, pairs: Iterable[tuple[str, str]], *args: Any, **options: Any
    ) -> list[float]:
        """Do ``compute_score`` off the event loop, with its arguments and results."""
        return await self.run_async(self.compute_score, pairs, *args, **options)

    async def arank(
        self, query: str, documents: Iterable[str], *args: Any, **options: Any
    ) -> list[tuple[int, float]]:
        """Do ``rank`` off the event loop, with its arguments and results."""
        return await self.run_async(self.rank, query, documents, *args, **options)

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
