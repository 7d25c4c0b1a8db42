"""Fields of the frameworks' rerankers: which models, and what changes their scores."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, field_validator, model_validator

from m3_core.adapters.assignment import Assignable
from m3_core.adapters.explaining import Explaining
from m3_core.adapters.keywords import accept_reranker_names, refuse_elsewhere
from m3_core.adapters.loading_fields import LoadingFields
from m3_core.adapters.spellings import Text  # noqa: TC001 (pydantic reads it)
from m3_core.encoder import adapter_encoder
from m3_core.errors import UnsupportedModelError
from m3_core.network import Source
from m3_core.rerankers import (
    Cascade,
    CascadeScore,
    RerankerOptions,
    adapter_reranker,
    select_best,
    weighted_parts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from m3_core.encoder import TextEncoder
    from m3_core.rerankers import CascadeScore, TextReranker

Ranked = list[tuple[int, float, dict[str, float]]]
"""Positions of the texts to keep, best first, with their scores and others that led to these."""

# What changes a model's scores, and how it is loaded; what is kept of the scores is neither.
_OPTIONS = {field.name for field in fields(RerankerOptions)} | Source.OPTIONS
_LOADING = ("device", "dtype", "cache_folder", "token", "local_files_only")


class RankingFields(Explaining, Assignable):
    """What is kept of what was scored."""

    top_n: int | None = Field(
        default=None, ge=1, description="How many to keep; all, if there is no number."
    )
    score_threshold: float | None = Field(
        default=None, description="The lowest score that is kept; a score equal to it stays."
    )
    show_progress: bool = Field(
        default=False, exclude=True, description="Show a progress bar while texts are read."
    )

    # Not abstract: LlamaIndex shows whatever implements an abstract method as a span.
    def _rank(self, query: str, texts: list[str]) -> Ranked:
        """Score texts for a query, and keep the best."""
        raise NotImplementedError

    async def _arank(self, query: str, texts: list[str]) -> Ranked:
        """Do ``_rank`` without holding up the event loop or occupying a thread."""
        raise NotImplementedError


class CrossEncoderFields(RankingFields):
    """What is kept of what a cross-encoder scored."""

    normalize: bool = Field(
        default=False,
        description="Put scores through the sigmoid, into 0 to 1; else they are raw logits. The "
        "threshold is compared with what this gives.",
    )


class RerankerFields(CrossEncoderFields, LoadingFields):
    """The options of a reranker; it is loaded once a process for all objects with the same ones.

    What needs no other model can be assigned, and counts from the next call on; ``None`` stands
    for the model's own again.
    """

    model_name: Text = Field(
        default="BAAI/bge-reranker-v2-m3",
        frozen=True,
        description="Local folder or hub repository.",
    )
    revision: str | None = Field(
        default=None, frozen=True, description="Branch, tag or commit of the repository."
    )
    dtype: Text = Field(
        default="auto",
        frozen=True,
        description="Data type of the network; 'float32' gives reference numbers.",
    )
    max_length: int | None = Field(
        default=None, description="Tokens a pair at most; by default 512."
    )
    query_max_length: int | None = Field(
        default=None,
        description="Tokens a query at most; by default three quarters of max_length.",
    )
    query_instruction: str | None = Field(
        default=None, description="Put before queries; by default the model's own, '' for none."
    )
    document_instruction: str | None = Field(
        default=None, description="Put before documents; by default the model's own, '' for none."
    )
    cutoff_layers: int | tuple[int, ...] | None = Field(
        default=None,
        description="Layers of a layerwise or lightweight model that give scores; the last one "
        "named counts.",
    )
    compress_layers: tuple[int, ...] | None = Field(
        default=None,
        description="Before which layers of a lightweight model a document's tokens are merged.",
    )
    compress_ratio: int | None = Field(
        default=None, description="How many tokens are merged into one."
    )
    trust_remote_code: bool = Field(
        default=False,
        frozen=True,
        description="Accepted, but no model here needs it: code of the checkpoint is never run.",
    )
    reranker: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="An m3_core.Reranker that is loaded already, or a RemoteReranker; options of "
        "loading must not be set then.",
    )

    _reranker: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _accept_names_of_others(cls, values: Any) -> Any:
        return accept_reranker_names(values) if isinstance(values, dict) else values

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        given = self._changed() | self._server()
        if "model_name" in self.model_fields_set:
            given["model_name"] = self.model_name
        self._reranker = adapter_reranker(self.reranker, self.model_name, given)
        if self.base_url is not None:
            # Not assigned, so that what was set by users stays known.
            self.__dict__["model_name"] = self._reranker.name

    def _changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            name: value
            for name, field in RerankerFields.model_fields.items()
            if name in _OPTIONS and (value := getattr(self, name)) != field.default
        }

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        if _OPTIONS.intersection(names):
            own = self._reranker
            given = {
                key: value
                for key, value in self._changed().items()
                if not RerankerFields.model_fields[key].frozen
            }
            basis = self.reranker or own
            if self.reranker is None and self.base_url is None:
                basis = type(own).over(own.model, own.source)
            if not hasattr(basis, "with_options"):
                raise ValueError(
                    f"{', '.join(sorted(names))} cannot be assigned with reranker= of type "
                    f"{type(basis).__name__}, whose options are its own: set it there"
                )
            self._reranker = basis.with_options(**given)

    def _rank(self, query: str, texts: list[str]) -> Ranked:
        pairs = [(query, text) for text in texts]
        return self._kept(
            self._scorer.compute_score(pairs, self.normalize, show_progress=self.show_progress)
        )

    async def _arank(self, query: str, texts: list[str]) -> Ranked:
        pairs = [(query, text) for text in texts]
        return self._kept(
            await self._scorer.acompute_score(
                pairs, self.normalize, show_progress=self.show_progress
            )
        )

    def _kept(self, scores: list[float]) -> Ranked:
        return [(*one, {}) for one in select_best(scores, self.top_n, self.score_threshold)]

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        raise UnsupportedModelError(
            f"{self._scorer.name!r} is a cross-encoder: it reads query and document together, and "
            "its score has no parts to explain. Its score is compute_score's; for words use "
            "explain of a retriever or an M3Reranker, which score with an encoder"
        )

    @property
    def _scorer(self) -> TextReranker:
        reranker: TextReranker = self._reranker
        return reranker


class CascadeFields(CrossEncoderFields, LoadingFields):
    """The options of a cascade, an encoder before a reranker.

    What needs no other model can be assigned, and counts from the next call on.
    """

    model_name: Text = Field(
        default="BAAI/bge-m3",
        frozen=True,
        description="The encoder: local folder or hub repository.",
    )
    reranker_name: Text = Field(
        default="BAAI/bge-reranker-v2-m3", frozen=True, description="The reranker, likewise."
    )
    first: int = Field(
        default=20, ge=1, description="Documents that the cross-encoder reads; others are dropped."
    )
    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0),
        description="Of M3's dense, lexical and multi-vector scores.",
    )
    dtype: Text = Field(
        default="auto",
        frozen=True,
        description="Data type of both networks; 'float32' gives reference numbers.",
    )
    encoder: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="An m3_core.Encoder that is loaded already, or another TextEncoder, with "
        "options of its own.",
    )
    reranker: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="An m3_core.Reranker that is loaded already, or a RemoteReranker, with "
        "options of its own.",
    )

    _cascade: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _answer_names_of_others(cls, values: Any) -> Any:
        if isinstance(values, dict):
            refuse_elsewhere(values, cls.model_fields)
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _check_weights(cls, weights: Any) -> Any:
        weighted_parts(weights)
        return weights

    def model_post_init(self, context: Any) -> None:
        """Load both models, or take those that were given."""
        super().model_post_init(context)
        self._check_steps()
        # These are for the model that is not given.
        loading: Mapping[str, Any] = {name: getattr(self, name) for name in _LOADING}
        if self.base_url is not None and self.encoder is not None and self.reranker is not None:
            raise ValueError(
                "base_url= is of no use beside encoder= and reranker=: leave out one of the three"
            )
        self._cascade = Cascade(
            adapter_encoder(
                self.encoder,
                self.model_name,
                {} if self.encoder else self._of_server("model_name", loading),
            ),
            adapter_reranker(
                self.reranker,
                self.reranker_name,
                {} if self.reranker else self._of_server("reranker_name", loading),
            ),
            first=self.first,
            weights=self.weights,
        )

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        self._check_steps()
        if not {"first", "weights"}.isdisjoint(names):
            own = self._steps
            self._cascade = Cascade(
                own.encoder, own.reranker, first=self.first, weights=self.weights
            )

    def _rank(self, query: str, texts: list[str]) -> Ranked:
        return _with_first_scores(self._steps.compute(query, texts, **self._kept()))

    async def _arank(self, query: str, texts: list[str]) -> Ranked:
        return _with_first_scores(await self._steps.acompute(query, texts, **self._kept()))

    def _kept(self) -> dict[str, Any]:
        return {
            "top_n": self.top_n,
            "threshold": self.score_threshold,
            "normalize": self.normalize,
            "show_progress": self.show_progress,
        }

    def _of_server(self, name: str, loading: Mapping[str, Any]) -> dict[str, Any]:
        """Options of one of the two models."""
        if self.base_url is None:
            return {**loading, **self._server()}
        # What stands there by default is no choice.
        own = {key: value for key, value in loading.items() if key in self.model_fields_set}
        if name in self.model_fields_set:
            own["model_name"] = getattr(self, name)
        return own | self._server()

    def _check_steps(self) -> None:
        if self.top_n is not None and self.top_n > self.first:
            raise ValueError(
                f"top_n={self.top_n} of first={self.first}: no more can be kept than the "
                "cross-encoder reads; raise first"
            )

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        steps = self._steps
        note = (
            f"This is the first step, by which {self.first} documents are kept; they are sorted by "
            f"the score of the cross-encoder {steps.reranker.name!r}, which has no parts."
        )
        options = {"parts": weighted_parts(self.weights), "weights": self.weights}
        return steps.encoder, {**options, "notes": (note,)}

    @property
    def _steps(self) -> Cascade:
        cascade: Cascade = self._cascade
        return cascade

    @property
    def _scorer(self) -> TextReranker:
        return self._steps.reranker


def _with_first_scores(found: Iterable[CascadeScore]) -> Ranked:
    return [(one.index, one.score, {"first_score": one.first_score}) for one in found]
