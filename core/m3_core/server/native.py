"""Our own routes: all representations in one reply, scores, models."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from starlette.responses import Response

from m3_core import wire
from m3_core.server.computing import encode, encoder_scores, json_answer, json_rows
from m3_core.server.failures import RequestError
from m3_core.server.reranking import VllmScoreBody, vllm_score
from m3_core.server.service import Body

if TYPE_CHECKING:
    from m3_core.server.models import Served
    from m3_core.server.service import Call, Service

Part = Literal["dense", "sparse", "colbert"]


class EncodeBody(Body):
    """The body of ``/v1/encode``."""

    texts: str | list[str]
    role: Literal["query", "document"] = "document"
    representations: list[Part] | None = None
    max_length: int | None = None
    model: str | None = None


class ScoreBody(Body):
    """The body of ``/v1/score``; that of vLLM's clients is known by its own fields."""

    pairs: list[tuple[str, str]] | None = None
    weights: tuple[float, float, float] | None = None
    normalize: bool = False
    model: str | None = None


async def encode_texts(call: Call, body: EncodeBody) -> Response:
    """Answer ``POST /v1/encode``."""
    served = call.encoder(body.model)
    texts = [body.texts] if isinstance(body.texts, str) else body.texts
    parts = served.parts if body.representations is None else tuple(body.representations)
    reps = await encode(call, served.model, texts, body.role, parts, body.max_length)
    fingerprint = served.model.fingerprint(parts, queries=body.role == "query")
    encoded = wire.Encoded(reps, served.name, fingerprint, body.role, call.meter.tokens)
    if wire.wants_binary(call.accept):
        return Response(wire.to_body(encoded), media_type=wire.MEDIA_TYPE)
    return await _as_json(encoded)


async def _as_json(encoded: wire.Encoded) -> Response:
    """As ``wire.to_json``, with the vectors written as they are."""
    reps = encoded.reps
    reply: dict[str, Any] = {
        "model": encoded.model,
        "fingerprint": encoded.fingerprint,
        "role": encoded.role,
    }
    if reps.dense_vecs is not None:
        reply["dense_vecs"] = await json_rows(reps.dense_vecs)
    if (weights := reps.lexical_weights) is not None:
        reply["lexical_weights"] = [
            {str(token): weight for token, weight in row.items()} for row in weights
        ]
        if weights.vocabulary_size is not None:
            reply["vocabulary_size"] = weights.vocabulary_size
    if reps.colbert_vecs is not None:
        reply["colbert_vecs"] = await json_rows(reps.colbert_vecs)
    reply["usage"] = usage(encoded.tokens)
    return json_answer(reply)


def usage(tokens: int) -> dict[str, int]:
    """Say as OpenAI does how many tokens were computed."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


async def score_pairs(call: Call, body: ScoreBody) -> Response:
    """Answer ``POST /v1/score``."""
    served = call.scorer(body.model)
    pairs = body.pairs or []
    if served.kind == "reranker":
        if body.weights is not None:
            raise RequestError(
                400, "a reranker has one score: weights are an encoder's", "unsupported_weights"
            )
        call.admit(len(pairs))
        scores: Any = await served.model.acompute_score(pairs, body.normalize)
    else:
        if body.normalize:
            raise RequestError(
                400,
                "an encoder's scores are cosines and sums: normalize is a reranker's",
                "unsupported_normalize",
            )
        found = await encoder_scores(call, served, pairs, body.weights or (1.0, 1.0, 1.0))
        scores = {key: value.tolist() for key, value in found.items()}
    return json_answer({"model": served.name, "scores": scores, "usage": usage(call.meter.tokens)})


class EitherScoreBody(VllmScoreBody):
    """The body of ``/v1/score``, ours or vLLM's."""

    pairs: list[tuple[str, str]] | None = None
    weights: tuple[float, float, float] | None = None
    normalize: bool | None = None


async def either_score(call: Call, body: EitherScoreBody) -> Response:
    """Answer ``POST /v1/score`` in the protocol of its body."""
    ours = {"pairs", "weights", "normalize"} & body.model_fields_set
    theirs = body.model_fields_set - {"pairs", "weights", "normalize", "model"}
    if ours and theirs:
        raise RequestError(
            422,
            "the body has pairs, as this server's /v1/score, and fields of vLLM's: send either",
            "invalid_body",
        )
    if theirs:
        return await vllm_score(call, body)
    if body.pairs is None:
        raise RequestError(422, "the body is not as it must be: pairs is absent", "invalid_body")
    return await score_pairs(
        call,
        ScoreBody(
            pairs=body.pairs,
            weights=body.weights,
            normalize=bool(body.normalize),
            model=body.model,
        ),
    )


def model_list(service: Service) -> dict[str, Any]:
    """Describe all models, as ``GET /v1/models`` does."""
    return {"object": "list", "data": [describe(service, served) for served in service.models]}


def describe(service: Service, served: Served) -> dict[str, Any]:
    """Describe a model as OpenAI does, and with what our clients need.

    Args:
        service: The server.
        served: The model.

    Returns:
        Plain values.
    """
    model, options = served.model, service.options
    told: dict[str, Any] = {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "m3-retrieval",
        "kind": served.kind,
        "max_length": model.max_length,
        "query_instruction": model.query_instruction,
        "document_instruction": model.document_instruction,
        "limits": {
            "max_texts": options.max_texts,
            # So many are never too many tokens, nor too large a body.
            "max_characters": min(options.max_tokens // 4, options.max_body_bytes // 8),
        },
    }
    if served.kind == "encoder":
        told |= {
            "representations": list(served.parts),
            "dimension": model.dimension,
            "colbert_dimension": model.colbert_dimension,
            "vocabulary_size": getattr(model, "vocabulary_size", None),
            "fingerprints": {
                role: {
                    "+".join(parts): model.fingerprint(parts, queries=role == "query")
                    for count in range(1, len(served.parts) + 1)
                    for parts in combinations(served.parts, count)
                }
                for role in ("document", "query")
            },
        }
    return told


def fingerprint(
    service: Service, model: str | None, parts: str | None, queries: str | None
) -> dict[str, str]:
    """Name what changes representations, as ``GET /v1/fingerprint`` does.

    Args:
        service: The server.
        model: The encoder's name.
        parts: Of ``dense``, ``sparse`` and ``colbert``, with commas between them.
        queries: ``"true"`` if the instruction of queries counts.

    Returns:
        ``{"fingerprint": ...}``.

    Raises:
        RequestError: A part is none of the encoder's, or ``queries`` is neither true nor false.
    """
    served = service.models.encoder(model)
    asked = tuple(served.parts if parts is None else filter(None, parts.split(",")))
    if not asked or not set(asked) <= set(served.parts):
        raise RequestError(
            400, f"parts must be some of {','.join(served.parts)}", "unknown_representation"
        )
    truth = {None: False, "true": True, "1": True, "false": False, "0": False}
    if queries not in truth:
        raise RequestError(400, "queries must be true or false", "invalid_value")
    return {"fingerprint": served.model.fingerprint(asked, queries=truth[queries])}
