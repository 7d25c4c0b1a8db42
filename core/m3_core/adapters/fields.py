"""Fields of the frameworks' adapters: which model, and what changes its results.

Both frameworks make their classes with pydantic, so the fields, what they load, and how objects
travel to other processes are here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from m3_core.adapters.keywords import refuse_elsewhere
from m3_core.adapters.loading_fields import LoadingFields
from m3_core.adapters.reranker_fields import Ranked, RankingFields
from m3_core.adapters.spellings import Text  # noqa: TC001 (pydantic reads it)
from m3_core.encoder import (
    CachedEncoder,
    EncoderOptions,
    RemoteEncoder,
    adapter_encoder,
    is_loaded_encoder,
)
from m3_core.rerankers import SCORED_ROLES, HybridScorer, weighted_parts

if TYPE_CHECKING:
    from collections.abc import Collection

    from m3_core.encoder import Role, TextEncoder

# Options of loading that an encoder remembers, as far as they are fields.
_LOADING = ("revision", "dtype", "trust_remote_code")
_OPTIONS = frozenset(field.name for field in fields(EncoderOptions))


@dataclass(frozen=True, slots=True)
class Origin:
    """Which of an object's options its user chose, for another one made of all its fields.

    LangChain makes a configured object of the fields of the first one, those that it had filled
    in itself among them; these are then no choice.

    Attributes:
        chosen: Names of the fields that the user set.
        filled: Values of the other options of the model.
    """

    chosen: frozenset[str]
    filled: dict[str, Any]

    def chooses(self, name: str, value: Any) -> bool:
        """Say whether a field of the other object is a choice.

        Args:
            name: The field.
            value: Its value there.

        Returns:
            False where the first object had filled it in, and the value is still the same.
        """
        is_filled = name in self.filled and name not in self.chosen
        return not (is_filled and value == self.filled[name])


class EncoderFields(LoadingFields):
    """The options of a model; it is loaded once a process for all objects with the same ones.

    What changes results is dumped, and says after construction what is in effect: the
    instructions and the length that the model itself brings, or those of a given encoder. Where
    it runs and what it shows is not dumped. A pickled object holds no weights: in the other
    process the model is loaded on first use.

    What needs no other model can be assigned, and counts from the next call on; ``None`` stands
    for the model's own again. Encodings are shared with those who then have the same options.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    parts: ClassVar[tuple[str, ...]] = ("dense",)
    """What the adapter needs of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
    roles: ClassVar[tuple[Role, ...]] = ("query", "document")
    """When other adapters shall compute that for it too."""

    model_name: Text = Field(
        default="BAAI/bge-m3", frozen=True, description="Local folder or hub repository."
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
        default=None, description="Tokens a text at most; by default the model's own."
    )
    query_instruction: str | None = Field(
        default=None,
        description="Put before queries; by default the model's own, '' for none.",
    )
    document_instruction: str | None = Field(
        default=None,
        description="Put before documents; by default the model's own, '' for none.",
    )
    trust_remote_code: bool = Field(
        default=False, frozen=True, description="Run model code that the checkpoint brings."
    )
    show_progress: bool = Field(
        default=False, exclude=True, description="Show a progress bar while documents are encoded."
    )
    reuse_encodings: bool = Field(
        default=True,
        exclude=True,
        description="Share recent encodings with the other adapters over the same model, so that "
        "a store that asks each of them for the same texts runs the network once.",
    )
    encoder: Any = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="An m3_core.Encoder that is loaded already, or a RemoteEncoder; options of "
        "loading must not be set beside it.",
    )
    origin: Origin | None = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="Kept by the object itself, so that one made of all its fields is the same.",
    )

    _encodings: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _answer_names_of_others(cls, values: Any) -> Any:
        if isinstance(values, dict):
            refuse_elsewhere(values, cls.model_fields)
        return values

    def model_post_init(self, context: Any) -> None:
        """Load the model, or take the one that was given."""
        super().model_post_init(context)
        self._forget_what_was_filled_in()
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.base_url is not None:
            # Of an object made of another's dump, what stands there by default is no choice.
            fields_of = type(self).model_fields
            given = {
                name: value for name, value in given.items() if value != fields_of[name].default
            }
        given |= self._server()
        self._encodings = CachedEncoder(
            adapter_encoder(self.encoder, self.model_name, given),
            self._needed_parts(),
            reuse=self.reuse_encodings,
            roles=self.roles,
        )
        self._show_what_is_in_effect()

    def _show_what_is_in_effect(self) -> None:
        # Not assigned, so that what was set by users stays known.
        in_effect = self._in_effect()
        if "model_name" in self.model_fields_set and self.model_name != in_effect["model_name"]:
            raise ValueError(
                f"model_name is {self.model_name!r}, and encoder= has "
                f"{in_effect['model_name']!r}: give one of the two"
            )
        self.__dict__.update(in_effect)
        options = EncoderFields.model_fields.keys() | in_effect.keys()
        filled = options - self.model_fields_set - {"origin"}
        self.__dict__["origin"] = Origin(
            frozenset(self.model_fields_set), {name: self.__dict__[name] for name in filled}
        )

    def __getstate__(self) -> dict[Any, Any]:
        # Of a copy: some frameworks take what cannot be pickled out of the object's own fields.
        state: dict[Any, Any] = super(EncoderFields, self._snapshot()).__getstate__()
        # Encodings know how to load the encoder on first use; itself, it would load at once.
        return state | {"__dict__": state["__dict__"] | {"encoder": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        values = state["__dict__"]
        absent = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
            if name not in values
        }
        # Of BaseModel, since a framework's own would construct the object and load the model.
        BaseModel.__setstate__(self, state | {"__dict__": values | absent})

    def _needed_parts(self) -> tuple[str, ...]:
        return self.parts

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        source = self._source
        assigned = [name for name in names if name in _OPTIONS]
        encoder = self._with_options(assigned) if assigned else None
        parts, reuse = self._needed_parts(), self.reuse_encodings
        if encoder is None and set(parts) == set(source.parts) and reuse == source.reuse:
            return
        self._encodings = CachedEncoder(
            encoder or self._model, parts, reuse=reuse, roles=source.roles
        )
        self._show_what_is_in_effect()

    def _with_options(self, names: list[str]) -> TextEncoder:
        """The encoder with the values that were assigned to some of its options."""
        encoder = self._model
        if isinstance(encoder, RemoteEncoder):
            return self._remote_with_options(encoder, names)
        if not is_loaded_encoder(encoder):
            raise ValueError(
                f"{', '.join(names)} cannot be assigned with encoder= of type "
                f"{type(encoder).__name__}, whose options are its own: set it there"
            )
        values = {name: getattr(self, name) for name in names}
        for name in [name for name in names if values[name] is None]:
            own = self.encoder
            if own is None:
                own = type(encoder).over(encoder.model, encoder.source)
            values[name] = getattr(own.options, name)
            self.model_fields_set.discard(name)
        return encoder.with_options(**values)

    def _remote_with_options(self, encoder: RemoteEncoder, names: list[str]) -> TextEncoder:
        values = {name: getattr(self, name) for name in names}
        # ``None`` stands for the server's own.
        for name in [name for name in names if values[name] is None]:
            self.model_fields_set.discard(name)
        return encoder.with_options(**values)

    def _forget_what_was_filled_in(self) -> None:
        """Of an object made of another one's fields: what the other's user had left alone."""
        chosen = self.model_fields_set
        chosen.discard("origin")
        if self.origin is None:
            return
        for name in sorted(chosen):
            if not self.origin.chooses(name, getattr(self, name)):
                chosen.discard(name)
                self.__dict__[name] = (
                    type(self).model_fields[name].get_default(call_default_factory=True)
                )

    def _in_effect(self) -> dict[str, Any]:
        """Values of those fields that the encoder knows better than who made the object."""
        encoder = self._model
        names = ("max_length", "query_instruction", "document_instruction")
        known: dict[str, Any] = {name: getattr(encoder, name) for name in names}
        known["model_name"] = encoder.name
        if is_loaded_encoder(encoder):
            known |= {name: getattr(encoder.options, name) for name in _OPTIONS}
            if self.encoder is not None:
                source = encoder.source
                known |= {name: getattr(source, name) for name in _LOADING}
                known["dtype"] = str(source.dtype).removeprefix("torch.")
        return {name: known[name] for name in known.keys() & type(self).model_fields.keys()}

    @property
    def _source(self) -> CachedEncoder:
        source: CachedEncoder = self._encodings
        return source

    @property
    def _model(self) -> TextEncoder:
        return self._source.encoder


class VectorFields(EncoderFields):
    """The options of dense vectors besides."""

    truncate_dim: int | None = Field(
        default=None,
        description="Keep so many leading values of each vector (Matryoshka).",
    )
    normalize: bool = Field(default=True, description="Scale vectors to length 1.")
    pooling: Literal["cls", "mean", "last"] | None = Field(
        default=None,
        description="How a vector is taken from the tokens; by default as the checkpoint says.",
    )


class ScoreFields(EncoderFields, RankingFields):
    """The options of M3's own scores besides, and what gives them."""

    roles = SCORED_ROLES

    weights: tuple[float, float, float] = Field(
        default=(1.0, 0.3, 1.0),
        description="Of dense, lexical and multi-vector scores; by default the M3 paper's.",
    )

    @field_validator("weights", mode="before")
    @classmethod
    def _check_weights(cls, weights: Any) -> Any:
        weighted_parts(weights)
        return weights

    def _needed_parts(self) -> tuple[str, ...]:
        return weighted_parts(self.weights)

    def _rank(self, query: str, texts: list[str]) -> Ranked:
        return [(*one, {}) for one in self._hybrid.rank(query, texts, **self._kept())]

    async def _arank(self, query: str, texts: list[str]) -> Ranked:
        return [(*one, {}) for one in await self._hybrid.arank(query, texts, **self._kept())]

    def _kept(self) -> dict[str, Any]:
        return {
            "top_n": self.top_n,
            "threshold": self.score_threshold,
            "show_progress": self.show_progress,
        }

    def _explained(self) -> tuple[TextEncoder, dict[str, Any]]:
        own = self._snapshot()
        return own._source, {"parts": weighted_parts(own.weights), "weights": own.weights}

    @property
    def _hybrid(self) -> HybridScorer:
        # Of a copy: weights that another thread assigns may need other parts.
        own = self._snapshot()
        return HybridScorer(own._source, own.weights)
