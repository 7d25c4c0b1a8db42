"""Reranking as Cohere, Jina and TEI have it, and vLLM's scores."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from m3_core.rerankers import select_best
from m3_core.server.computing import encoder_scores, json_answer, relevance
from m3_core.server.failures import RequestError
from m3_core.server.service import Body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from m3_core.server.models import Served
    from m3_core.server.service import Call


class CohereV2Body(Body):
    """The body of Cohere's ``/v2/rerank``."""

    query: str
    documents: list[str]
    model: str | None = None
    top_n: int | None = None
    max_tokens_per_doc: int | None = None
    priority: int | None = None


class RerankBody(Body):
    """The body of ``/v1/rerank``, which Cohere's old protocol and Jina's share."""

    query: str
    documents: list[str | dict[str, str]]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    # Cohere's.
    rank_fields: list[str] | None = None
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: int | None = None
    # Jina's.
    truncation: bool | None = None
    return_embeddings: bool | None = None
    max_doc_length: int | None = None
    max_query_length: int | None = None
    # infinity's.
    raw_scores: bool = False


class VllmScoreBody(Body):
    """The body of vLLM's ``/score``, in its older and its newer names."""

    model: str | None = None
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    truncate_prompt_tokens: int | None = None
    activation: bool | None = None
    use_activation: bool | None = None
    user: str | None = None
    request_id: str | None = None
    priority: int | None = None


async def cohere_v2(call: Call, body: CohereV2Body) -> Response:
    """Answer Cohere's ``POST /v2/rerank``."""
    served = call.scorer(body.model)
    _check_lengths(served, body.max_tokens_per_doc)
    best = await _best(call, served, body.query, body.documents, body.top_n)
    return json_answer(
        {
            "id": str(uuid4()),
            "results": [{"index": index, "relevance_score": score} for index, score in best],
            "meta": _meta("2"),
        }
    )


async def rerank(call: Call, body: RerankBody) -> Response:
    """Answer ``POST /v1/rerank`` so that clients of Cohere and of Jina can read it.

    Documents are repeated unless the client does not want them; Cohere's, unless it asks for them.
    """
    served = call.scorer(body.model)
    _check_lengths(served, body.max_tokens_per_doc, body.max_doc_length, body.max_query_length)
    _check_rerank(call, body)
    fields = body.rank_fields
    texts = [one if isinstance(one, str) else _text(one, fields) for one in body.documents]
    best = await _best(call, served, body.query, texts, body.top_n, raw=body.raw_scores)
    cohere = call.agent.startswith("cohere") or fields or body.max_tokens_per_doc
    wanted = not cohere if body.return_documents is None else body.return_documents
    results: list[dict[str, Any]] = []
    for index, score in best:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if wanted:
            given = body.documents[index]
            result["document"] = {"text": given} if isinstance(given, str) else given
        results.append(result)
    tokens = call.meter.tokens
    return json_answer(
        {
            "id": str(uuid4()),
            "object": "list",
            "model": served.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": results,
            "meta": _meta("1"),
        }
    )


async def vllm_score(call: Call, body: VllmScoreBody) -> Response:
    """Answer vLLM's ``POST /score``: cosines of an encoder, sigmoids of a reranker's logits."""
    served = call.scorer(body.model)
    if body.truncate_prompt_tokens not in (None, -1):
        _check_lengths(served, body.truncate_prompt_tokens)
    pairs = _vllm_pairs(body)
    wanted = {flag for flag in (body.activation, body.use_activation) if flag is not None}
    if len(wanted) > 1:
        raise RequestError(400, "activation and use_activation contradict", "invalid_value")
    if served.kind == "reranker":
        call.admit(len(pairs))
        scores = await served.model.acompute_score(pairs, normalize=wanted != {False})
    else:
        found = await encoder_scores(call, served, pairs, parts=("dense",))
        scores = found["dense"].tolist()
    tokens = call.meter.tokens
    return json_answer(
        {
            "id": f"score-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": served.name,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(scores)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        }
    )


def _vllm_pairs(body: VllmScoreBody) -> list[tuple[str, str]]:
    lefts = [one for one in (body.text_1, body.data_1, body.queries) if one is not None]
    rights = [one for one in (body.text_2, body.data_2, body.documents) if one is not None]
    if len(lefts) != 1 or len(rights) != 1:
        raise RequestError(
            422, "send text_1 and text_2 (or queries and documents), each once", "invalid_body"
        )
    left, right = ([one] if isinstance(one, str) else one for one in (lefts[0], rights[0]))
    if len(left) == 1:
        left = left * len(right)
    if not left or len(left) != len(right):
        raise RequestError(
            400,
            f"{len(left)} texts cannot be scored with {len(right)}: one with all, or as many as "
            "there are on the other side",
            "invalid_value",
        )
    return list(zip(left, right, strict=True))


async def _best(
    call: Call,
    served: Served,
    query: str,
    documents: Sequence[str],
    top_n: int | None,
    *,
    raw: bool = False,
) -> list[tuple[int, float]]:
    if not documents:
        raise RequestError(400, "documents are empty: send at least one", "empty_input")
    if top_n is not None and top_n < 1:
        raise RequestError(400, f"top_n is {top_n}; it must be at least 1", "invalid_value")
    scores = await relevance(call, served, query, documents, normalize=not raw)
    return select_best(scores, top_n)


def _check_lengths(served: Served, *lengths: int | None) -> None:
    """Let a client's limit pass only where the model's own is not above it."""
    most = served.model.max_length
    for length in lengths:
        if length is not None and length < most:
            raise RequestError(
                400,
                f"a limit of {length} tokens was asked for; {served.name!r} cuts at {most}: leave "
                "it out, or load the model with another max_length",
                "unsupported_length",
            )


def _check_rerank(call: Call, body: RerankBody) -> None:
    if body.return_embeddings:
        raise RequestError(400, "return_embeddings: ask /v1/encode for them", "unsupported")
    if body.max_chunks_per_doc not in (None, 1):
        raise RequestError(
            400,
            "documents are scored whole, not in chunks: leave max_chunks_per_doc out",
            "unsupported",
        )
    if body.truncation is False:
        call.meter.may_cut = False


def _text(document: dict[str, str], fields: Sequence[str] | None) -> str:
    """A document of fields, as Cohere has it: its text, or the fields that are named."""
    names = fields or ("text",)
    absent = [name for name in names if name not in document]
    if absent:
        raise RequestError(
            400,
            "a document lacks a field that is to be ranked: give each its text, or name the fields "
            "in rank_fields",
            "invalid_value",
        )
    if fields is None:
        return document["text"]
    return "\n".join(f"{name}: {document[name]}" for name in names)


def _meta(version: str) -> dict[str, Any]:
    return {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
