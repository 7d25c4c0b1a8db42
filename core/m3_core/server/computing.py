"""What all protocols ask of models: representations of texts, and scores of pairs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.responses import Response

from m3_core.beside import beside
from m3_core.encoder import TEXTS_ON_THE_LOOP
from m3_core.scoring import dense_scores, pair_scores
from m3_core.server.failures import RequestError
from m3_core.texts import check_texts, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from m3_core.encoder import Role, TextEncoder
    from m3_core.representations import Representations
    from m3_core.server.models import Served
    from m3_core.server.service import Call

_QUERIES = frozenset(("query", "search_query", "retrieval.query"))
_DOCUMENTS = frozenset(
    ("document", "passage", "search_document", "retrieval.passage", "retrieval.document")
)
# After so many numbers others get their turn on the event loop.
_NUMBERS_AT_ONCE = 1 << 18

TOKEN_IDS = (
    "token ids were sent in place of texts: they are of another model's vocabulary and mean other "
    "words here; send the texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


def role_of(*names: str | None) -> Role:
    """Choose the instruction by what clients call it.

    Args:
        *names: Of ``input_type``, ``prompt_name`` and the like, those that are given.

    Returns:
        The role; ``"document"`` where none is given.

    Raises:
        RequestError: A name is none of those known, or they contradict each other.
    """
    roles: set[Role] = set()
    for name in names:
        if name in _QUERIES:
            roles.add("query")
        elif name in _DOCUMENTS:
            roles.add("document")
        elif name is not None:
            raise RequestError(
                400,
                "input_type, prompt_name and task choose between queries and documents: one of "
                f"{', '.join(sorted(_QUERIES | _DOCUMENTS))}",
                "unknown_role",
            )
    if len(roles) > 1:
        raise RequestError(400, "input_type, prompt_name and task contradict", "unknown_role")
    return roles.pop() if roles else "document"


def resized(
    served: Served, dimensions: int | None = None, *, normalize: bool = True
) -> TextEncoder:
    """Give an encoder of which vectors of another form are asked.

    Args:
        served: The encoder.
        dimensions: Keep so many leading values, as ``truncate_dim`` does.
        normalize: Scale vectors to length 1.

    Returns:
        The encoder itself, or another over the same weights.

    Raises:
        RequestError: It cannot give them.
    """
    encoder: Any = served.model
    changes: dict[str, Any] = {}
    if dimensions not in (None, encoder.dimension):
        changes["truncate_dim"] = dimensions
    if not normalize:
        changes["normalize"] = False
    if not changes:
        return encoder  # type: ignore[no-any-return]  # encoders are served as Any
    if not hasattr(encoder, "with_options") or (dimensions or 0) > encoder.dimension:
        asked = " and ".join(f"{key} {value}" for key, value in changes.items())
        raise RequestError(
            400,
            f"{asked} was asked for; {served.name!r} gives vectors of {encoder.dimension} values "
            "as it was loaded",
            "unsupported_vectors",
        )
    return encoder.with_options(**changes)  # type: ignore[no-any-return]  # as above


async def encode(
    call: Call,
    encoder: TextEncoder,
    texts: Sequence[str],
    role: Role,
    parts: Iterable[str],
    max_length: int | None = None,
) -> Representations:
    """Encode the texts of a request.

    Args:
        call: The request.
        encoder: What encodes them.
        texts: The texts.
        role: Which instruction stands before them.
        parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``.
        max_length: Tokens a text at most.

    Returns:
        These parts.

    Raises:
        RequestError: There are too many of them.
    """
    call.admit(len(texts))
    asked = set(parts)
    run = encoder.aencode_queries if role == "query" else encoder.aencode_documents
    return await run(
        list(texts),
        return_dense="dense" in asked,
        return_sparse="sparse" in asked,
        return_colbert_vecs="colbert" in asked,
        max_length=max_length,
    )


async def encoder_scores(
    call: Call,
    served: Served,
    pairs: Sequence[tuple[str, str]],
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    parts: Iterable[str] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Score pairs with an encoder, as ``Encoder.compute_score`` does.

    Args:
        call: The request.
        served: The encoder.
        pairs: Queries with documents.
        weights: Of dense, sparse and colbert in the combined scores.
        parts: What to compute; all that it has if ``None``.

    Returns:
        FlagEmbedding's keys; ``"dense"`` alone where not all three are computed. Shape: (pairs,).
    """
    wanted = served.parts if parts is None else tuple(parts)
    query_rows, queries = distinct(check_texts([query for query, _ in pairs]))
    document_rows, documents = distinct(check_texts([document for _, document in pairs]))
    call.admit(len(queries) + len(documents))
    left, right = await asyncio.gather(
        encode(call, served.model, queries, "query", wanted),
        encode(call, served.model, documents, "document", wanted),
    )

    def scores() -> dict[str, NDArray[np.float32]]:
        if len(wanted) == 3:
            return pair_scores(left, right, query_rows, document_rows, weights)
        if left.dense_vecs is None or right.dense_vecs is None:
            raise RequestError(400, "the model has no dense vectors to compare", "no_score")
        chosen = left.dense_vecs[query_rows], right.dense_vecs[document_rows]
        return {"dense": np.einsum("ij,ij->i", *chosen)}

    return scores() if len(pairs) <= TEXTS_ON_THE_LOOP else await beside(scores)


async def relevance(
    call: Call, served: Served, query: str, documents: Sequence[str], *, normalize: bool = True
) -> list[float]:
    """Score documents for a query, as reranking protocols want it.

    Args:
        call: The request.
        served: A reranker; or an encoder, whose three scores are averaged.
        query: The query.
        documents: The documents.
        normalize: Put a reranker's scores through the sigmoid, into 0 to 1.

    Returns:
        One score a document.
    """
    pairs = [(query, document) for document in documents]
    if served.kind == "reranker":
        call.admit(len(pairs))
        found: list[float] = await served.model.acompute_score(pairs, normalize)
        return found
    if not pairs:
        return []
    scores = await encoder_scores(call, served, pairs)
    combined: list[float] = scores.get("colbert+sparse+dense", scores["dense"]).tolist()
    return combined


async def similarity(
    call: Call, encoder: TextEncoder, source: str, texts: Sequence[str], role: Role
) -> list[float]:
    """Cosines of one text's dense vector with others', all encoded in one role."""
    reps = await encode(call, encoder, [source, *texts], role, ("dense",))
    dense: Any = reps.dense_vecs
    found: list[float] = dense_scores(dense[:1], dense[1:])[0].tolist()
    return found


async def json_rows(rows: Iterable[NDArray[Any]]) -> list[orjson.Fragment]:
    """Write arrays as JSON, a row at a time, without a Python number in between.

    Args:
        rows: Arrays of one or two dimensions, float32 or float16.

    Returns:
        What ``orjson`` puts into a larger document; others on the event loop got their turns.
    """
    written: list[orjson.Fragment] = []
    numbers = 0
    for row in rows:
        array = np.ascontiguousarray(row, np.float32)
        written.append(orjson.Fragment(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)))
        numbers += array.size
        if numbers > _NUMBERS_AT_ONCE:
            numbers = 0
            await asyncio.sleep(0)
    return written


def json_answer(value: Any, status: int = 200) -> Response:
    """Make an answer of what ``orjson`` can write."""
    return Response(orjson.dumps(value), status, media_type="application/json")
