"""Models for mteb: all of M3 in its retrieval tasks, dense vectors in the others.

mteb takes any object of the shape of its protocols. For retrieval it is handed the collection and
the queries whole, so that dense, lexical and multi-vector scores come from one pass over each text.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.encoder import PARTS
from m3_core.errors import MissingRepresentationError
from m3_core.evaluation.pool import build_pool
from m3_core.evaluation.settings import DEFAULT, DENSE_SPARSE, SINGLE, Setting
from m3_core.evaluation.shards import encode_texts
from m3_core.extras import needs_extra
from m3_core.scoring import dense_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder import TextEncoder
    from m3_core.evaluation.pool import Scope
    from m3_core.evaluation.settings import Fusion, Weights
    from m3_core.evaluation.shards import EncodedTexts

_ORGANISATION = "m3-retrieval"
_KINDS = {"dense": "dense", "sparse": "sparse", "colbert": "late-interaction"}
# By short name what is registered, and under which name mteb knows the model itself.
_REGISTERED = {"bge-m3": "BAAI/bge-m3", "m3-small": None}
_SETTINGS = {
    **{one.name: one for one in SINGLE},
    "dense+sparse": DENSE_SPARSE,
    "all": DEFAULT,
}


class MtebModel:
    """A model as mteb wants it: ``SearchProtocol`` by one setting, ``EncoderProtocol`` by dense.

    Args:
        encoder: What encodes.
        setting: How retrieval tasks rank.
        meta: mteb's metadata of the model.
        encodings: Folder where encodings are kept, for other settings too; a temporary one if
            ``None``.
        colbert: As of ``EvaluationOptions``.
        candidates: Likewise.

    Attributes:
        encoder: What encodes.
        setting: How retrieval tasks rank.
        mteb_model_meta: mteb's metadata of the model.

    Raises:
        MissingRepresentationError: The setting needs one that the model lacks.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        setting: Setting,
        meta: Any,
        *,
        encodings: str | Path | None = None,
        colbert: Scope = "auto",
        candidates: int = 200,
    ) -> None:
        if absent := sorted(set(setting.parts) - encoder.representations):
            raise MissingRepresentationError(
                f"{setting.name} needs {' and '.join(absent)}; {encoder.name} has "
                f"{' and '.join(sorted(encoder.representations))}"
            )
        self.encoder = encoder
        self.setting = setting
        self.mteb_model_meta = meta
        self._scope: Scope = colbert
        self._candidates = candidates
        self._kept = None if encodings is None else Path(encodings)
        self._folder: Path | None = self._kept
        self._remove: Callable[[], object] = lambda: None
        # Kept for other settings, or first steps of multi-vectors: all comes from the same pass.
        is_all = self._kept is not None or "colbert" in setting.parts
        wanted = encoder.representations if is_all else setting.parts
        self._parts = tuple(part for part in PARTS if part in wanted)
        self._documents: EncodedTexts | None = None

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **_: Any,
    ) -> None:
        """Encode a collection, all representations in one pass.

        Args:
            corpus: mteb's data set with ``id``, ``text`` and perhaps ``title``.
            task_metadata: Of the task.
            hf_split: Not used.
            hf_subset: Not used.
            encode_kwargs: Not used: batches are made by tokens.
            num_proc: Processes that prepare texts.
        """
        if self._kept is None:
            # Of the last task's collection nothing is needed any more.
            self._remove()
            self._folder = Path(tempfile.mkdtemp(prefix="m3-mteb-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        assert self._folder is not None
        self._documents = encode_texts(
            self.encoder,
            zip(corpus["id"], _texts(corpus, task_metadata, "document", num_proc), strict=True),
            self._folder,
            parts=self._parts,
        )

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Rank the collection for queries.

        Args:
            queries: mteb's data set with ``id`` and ``text``.
            task_metadata: Of the task.
            hf_split: Not used.
            hf_subset: Not used.
            top_k: Documents a query at most.
            encode_kwargs: Not used.
            top_ranked: Ids of the documents that each query may find; all if ``None``.
            num_proc: Processes that prepare texts.

        Returns:
            Scores of documents by query, best first.

        Raises:
            RuntimeError: There is no collection yet.
        """
        if self._documents is None or self._folder is None:
            raise RuntimeError("search() comes after index(), which gives it the collection")
        asked = encode_texts(
            self.encoder,
            zip(queries["id"], _texts(queries, task_metadata, "query", num_proc), strict=True),
            self._folder,
            role="query",
            parts=self._parts,
        )
        documents = self._documents
        allowed = None
        if top_ranked is not None:
            numbers = {key: row for row, key in enumerate(documents.ids)}
            allowed = [
                np.unique(np.array([numbers[key] for key in top_ranked.get(query, ())], np.int64))
                for query in asked.ids
            ]
        pool = build_pool(
            asked.whole(),
            documents,
            depth=max(top_k, 1000),
            scope=self._scope,
            candidates=self._candidates,
            allowed=allowed,
        )
        ranking = pool.rank(self.setting, top_k)
        return {
            query: {
                documents.ids[row]: score
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            }
            for query, rows, scores in zip(asked.ids, ranking.rows, ranking.scores, strict=True)
        }

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """Encode texts for tasks other than retrieval.

        Args:
            inputs: Batches with ``text``.
            task_metadata: Not used.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: ``"document"`` puts the instruction of documents before them, anything
                else that of queries, as models with instructions want it for symmetric tasks.

        Returns:
            Dense vectors. Shape: (texts, dim).

        Raises:
            MissingRepresentationError: The model has no dense vectors.
        """
        if "dense" not in self.encoder.representations:
            raise MissingRepresentationError(f"{self.encoder.name} has no dense vectors to give")
        texts = [text for batch in inputs for text in batch["text"]]
        is_document = getattr(prompt_type, "value", prompt_type) == "document"
        encode = self.encoder.encode_documents if is_document else self.encoder.encode_queries
        vectors = encode(texts, return_dense=True).dense_vecs
        assert vectors is not None
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """Inner products of dense vectors, cosines for M3.

        Args:
            embeddings1: Shape: (first, dim).
            embeddings2: Shape: (second, dim).

        Returns:
            Shape: (first, second).
        """
        return dense_scores(np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """Inner products of dense vectors, pair by pair.

        Args:
            embeddings1: Shape: (pairs, dim).
            embeddings2: Shape: (pairs, dim).

        Returns:
            Shape: (pairs,).
        """
        first, second = np.asarray(embeddings1), np.asarray(embeddings2)
        found: NDArray[np.float32] = np.einsum("ij,ij->i", first, second).astype(np.float32)
        return found


def _texts(data: Any, task_metadata: Any, kind: str, num_proc: int | None) -> Iterator[str]:
    """Texts as mteb puts them together of titles, instructions and conversations."""
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    loader = create_dataloader(
        data,
        task_metadata=task_metadata,
        prompt_type=PromptType(kind),
        batch_size=256,
        num_proc=num_proc,
    )
    for batch in loader:
        yield from batch["text"]


def mteb_model(
    encoder: TextEncoder,
    weights: Weights = DEFAULT.weights,
    fusion: Fusion = "weights",
    *,
    name: str | None = None,
    revision: str | None = None,
    encodings: str | Path | None = None,
    colbert: Scope = "auto",
    candidates: int = 200,
) -> MtebModel:
    """Make a model for ``mteb.evaluate``.

    Args:
        encoder: What encodes.
        weights: Of dense, lexical and multi-vector scores in retrieval tasks; ``(1, 0, 0)`` ranks
            by dense vectors alone, and so on.
        fusion: By the weighted mean of scores, or by reciprocal ranks: ``"rrf"``.
        name: ``organisation/model`` for results; made of the encoder's if ``None``.
        revision: Of the model, for results.
        encodings: Folder where encodings are kept: other settings on the same task encode
            nothing. A temporary one if ``None``.
        colbert: Of which documents multi-vectors are scored: ``"all"``, ``"candidates"`` or
            ``"auto"``, as of ``EvaluationOptions``.
        candidates: How many of dense and of lexical scores these are.

    Returns:
        The model.

    Raises:
        MissingPackageError: mteb is absent.
        MissingRepresentationError: The model lacks one with a weight.
        ValueError: The weights are not three numbers of at least 0 with a sum above 0.
    """
    setting = Setting.of((weights[0], weights[1], weights[2]), fusion)
    if name is None:
        parts = [part for part in Path(encoder.name).parts if part not in ("/", "..", ".")]
        name = "/".join(parts[-2:]) if len(parts) > 1 else f"{_ORGANISATION}/{encoder.name}"
    meta = _meta_of(name, setting, revision=revision, encoder=encoder)
    return MtebModel(
        encoder, setting, meta, encodings=encodings, colbert=colbert, candidates=candidates
    )


def register_mteb_models() -> list[str]:
    """Add our models to mteb's registry, for ``mteb.get_model`` and its command line.

    Returns:
        Their names: ``m3-retrieval/bge-m3-all`` and so on; models that are there already stay.

    Raises:
        MissingPackageError: mteb is absent.
    """
    registry = _registry()
    names = []
    for model, known in _REGISTERED.items():
        for short, setting in _SETTINGS.items():
            name = f"{_ORGANISATION}/{model}-{short}"
            if name not in registry:
                registry[name] = _meta_of(name, setting, known=known, model=known or model)
            names.append(name)
    return names


def _registry() -> dict[str, Any]:
    with needs_extra("a model for mteb", "mteb", "mteb"):
        from mteb.models.model_implementations import MODEL_REGISTRY
    registry: dict[str, Any] = MODEL_REGISTRY
    return registry


def _meta_of(
    name: str,
    setting: Setting,
    *,
    revision: str | None = None,
    known: str | None = None,
    model: str | None = None,
    encoder: TextEncoder | None = None,
) -> Any:
    """Metadata for mteb: what it knows of the model itself, and how it ranks here."""
    registry = _registry()
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    base = registry.get(known or name)
    if base is None:
        base = ModelMeta.create_empty({"name": name, "revision": revision})
    kinds = [_KINDS[part] for part in setting.parts]
    changes: dict[str, Any] = {
        "name": name,
        "revision": revision or base.revision or "main",
        "model_type": kinds if len(kinds) == 1 else ["hybrid"],
        "similarity_fn_name": ScoringFunction.COSINE,
        "framework": ["PyTorch"],
        "experiment_kwargs": {
            "weights": "-".join(f"{weight:g}" for weight in setting.weights),
            "fusion": setting.fusion,
        },
        "loader": None,
    }
    if model is not None:
        changes |= {
            "loader": _load,
            "loader_kwargs": {"model": model},
            "adapted_from": known,
        }
    if encoder is not None:
        changes |= {
            "embed_dim": encoder.dimension,
            "max_tokens": encoder.max_length,
            "use_instructions": bool(encoder.query_instruction or encoder.document_instruction),
        }
    return base.model_copy(update=changes)


def _load(
    name: str,
    revision: str | None = None,
    *,
    model: str,
    weights: str,
    fusion: Fusion = "weights",
    device: str | None = None,
    encodings: str | None = None,
    **options: Any,
) -> MtebModel:
    """Load a registered model, as mteb asks for it."""
    from m3_core.encoder import Encoder

    is_hub = "/" in model
    encoder = Encoder.from_pretrained(
        model, revision=revision if is_hub else None, device=device, **options
    )
    dense, sparse, colbert = (float(one) for one in weights.split("-"))
    return mteb_model(
        encoder,
        (dense, sparse, colbert),
        fusion,
        name=name,
        revision=revision,
        encodings=encodings,
    )
