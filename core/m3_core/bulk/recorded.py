"""What a corpus was encoded with: as it is written down, and as an encoder that encodes no more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from m3_core.encoder import PARTS, EncodingMethods
from m3_core.errors import DatasetError, MissingRepresentationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from m3_core.encoder import Role, TextEncoder
    from m3_core.representations import Representations


def _key(parts: Collection[str]) -> str:
    return ",".join(part for part in PARTS if part in parts)


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """The model of an encoded corpus.

    Attributes:
        name: What it is called.
        representations: What was encoded, of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        fingerprints: Of each choice of these, joined by commas.
        dimension: Width of dense vectors.
        colbert_dimension: Width of multi-vectors.
        max_length: Tokens a text at most.
        query_instruction: What the model puts before queries.
        document_instruction: What was put before the texts.
    """

    name: str
    representations: tuple[str, ...]
    fingerprints: Mapping[str, str]
    dimension: int
    colbert_dimension: int
    max_length: int
    query_instruction: str
    document_instruction: str

    @classmethod
    def of(cls, encoder: TextEncoder, parts: Collection[str] | None) -> RecordedModel:
        """Describe an encoder.

        Args:
            encoder: The encoder.
            parts: What shall be encoded; ``None`` for all that it gives.

        Returns:
            The description.

        Raises:
            ValueError: There is no such representation, or none at all.
            MissingRepresentationError: The encoder does not give one of them.
        """
        asked = set(encoder.representations if parts is None else parts)
        if not asked or asked - PARTS.keys():
            raise ValueError(
                f"representations are of {', '.join(PARTS)}, at least one; got {sorted(asked)}"
            )
        if absent := sorted(asked - encoder.representations):
            raise MissingRepresentationError(
                f"{' and '.join(absent)} asked for, but {encoder.name!r} gives only "
                f"{', '.join(sorted(encoder.representations))}"
            )
        kept = tuple(part for part in PARTS if part in asked)
        choices = [c for size in range(1, len(kept) + 1) for c in combinations(kept, size)]
        return cls(
            name=encoder.name,
            representations=kept,
            fingerprints={_key(choice): encoder.fingerprint(choice) for choice in choices},
            dimension=encoder.dimension,
            colbert_dimension=encoder.colbert_dimension,
            max_length=encoder.max_length,
            query_instruction=encoder.query_instruction,
            document_instruction=encoder.document_instruction,
        )

    @property
    def fingerprint(self) -> str:
        """Of all that was encoded."""
        return self.fingerprints[_key(self.representations)]

    def to_json(self) -> dict[str, Any]:
        """Write it down."""
        return asdict(self) | {"representations": list(self.representations)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RecordedModel:
        """Read what ``to_json`` wrote."""
        return cls(**{**values, "representations": tuple(values["representations"])})

    def check(self, encoder: TextEncoder, parts: Collection[str], what: str) -> None:
        """Check that an encoder gives the same.

        Args:
            encoder: The encoder.
            parts: Representations that matter.
            what: The corpus, for the error.

        Raises:
            DatasetError: It gives others.
        """
        found, expected = encoder.fingerprint(parts), self.fingerprints[_key(parts)]
        if found != expected:
            raise DatasetError(
                f"{what} was encoded with {self.name!r} ({expected}), and {encoder.name!r} "
                f"({found}) is another model or has other options for documents: use the same, "
                "or encode the corpus anew"
            )


class RecordedEncoder(EncodingMethods):
    """A ``TextEncoder`` that is only described, for stores that take what was encoded before.

    Args:
        model: The description.
    """

    closed = False

    def __init__(self, model: RecordedModel) -> None:
        self.model = model
        self.name = model.name
        self.representations = frozenset(model.representations)
        self.dimension = model.dimension
        self.colbert_dimension = model.colbert_dimension
        self.max_length = model.max_length
        self.query_instruction = model.query_instruction
        self.document_instruction = model.document_instruction

    @property
    def origin(self) -> RecordedEncoder:
        """Itself."""
        return self

    def fingerprint(self, parts: Collection[str] = ("dense",), *, queries: bool = False) -> str:
        """Give the recorded fingerprint.

        Args:
            parts: Representations that matter.
            queries: Was not recorded.

        Returns:
            As the model's.
        """
        if queries or _key(parts) not in self.model.fingerprints:
            raise DatasetError(f"of {self.name!r} only documents' {_key(PARTS)} were recorded")
        return self.model.fingerprints[_key(parts)]

    def close(self) -> None:
        """Do nothing."""

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        raise DatasetError(f"{self.name!r} is not loaded here: only what it gave before is known")

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
    ) -> Representations:
        return self._encode(role, texts, parts, max_length, show_progress=show_progress)
