"""The routes of Hugging Face's Text Embeddings Inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from m3_core import __version__
from m3_core.beside import beside
from m3_core.rerankers import select_best
from m3_core.server.computing import (
    TOKEN_IDS,
    encode,
    json_answer,
    json_rows,
    relevance,
    resized,
    role_of,
    similarity,
)
from m3_core.server.failures import RequestError
from m3_core.server.reranking import RerankBody, rerank
from m3_core.server.service import Body

if TYPE_CHECKING:
    from starlette.responses import Response

    from m3_core.server.service import Call, Service

Direction = Literal["Left", "left", "Right", "right"]


class _Cut(Body):
    truncate: bool | None = None
    truncation_direction: Direction = "Right"


class EmbedBody(_Cut):
    """The body of ``/embed``, ``/embed_sparse`` and ``/embed_all``."""

    inputs: str | list[str] | list[int] | list[list[int]]
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None


class EitherRerankBody(RerankBody):
    """The body of ``/rerank``: TEI's, or that of Jina's and infinity's clients."""

    documents: list[str | dict[str, str]] | None = None  # type: ignore[assignment]  # TEI has texts
    texts: list[str] | None = None
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Direction = "Right"


class SimilarityBody(Body):
    """The body of ``/similarity``."""

    class Inputs(Body):
        """What is compared."""

        source_sentence: str
        sentences: list[str]

    class Parameters(_Cut):
        """How."""

        prompt_name: str | None = None

    inputs: Inputs
    parameters: Parameters | None = None


class TokenizeBody(Body):
    """The body of ``/tokenize``."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


async def embed(call: Call, body: EmbedBody) -> Response:
    """Answer ``POST /embed``: dense vectors."""
    served = call.encoder()
    encoder = resized(served, body.dimensions, normalize=body.normalize)
    reps = await encode(call, encoder, _texts(call, body), role_of(body.prompt_name), ("dense",))
    dense: Any = reps.dense_vecs
    return json_answer(await json_rows(dense))


async def embed_sparse(call: Call, body: EmbedBody) -> Response:
    """Answer ``POST /embed_sparse``: lexical weights."""
    served = call.encoder()
    _refuse_form(body)
    texts = _texts(call, body)
    reps = await encode(call, served.model, texts, role_of(body.prompt_name), ("sparse",))
    return json_answer(
        [
            [{"index": token, "value": weight} for token, weight in row.items()]
            for row in reps.lexical_weights or ()
        ]
    )


async def embed_all(call: Call, body: EmbedBody) -> Response:
    """Answer ``POST /embed_all``: multi-vectors, one vector a token."""
    served = call.encoder()
    _refuse_form(body)
    texts = _texts(call, body)
    reps = await encode(call, served.model, texts, role_of(body.prompt_name), ("colbert",))
    return json_answer(await json_rows(reps.colbert_vecs or ()))


async def either_rerank(call: Call, body: EitherRerankBody) -> Response:
    """Answer ``POST /rerank`` in the protocol of its body: TEI's has texts, others documents."""
    if (body.texts is None) == (body.documents is None):
        raise RequestError(422, "send texts (TEI) or documents (Jina, infinity)", "invalid_body")
    if body.texts is None:
        call.protocol = "jina"
        return await rerank(call, body)
    _check_cut(call, truncate=body.truncate, direction=body.truncation_direction)
    if not body.texts:
        raise RequestError(400, "texts are empty: send at least one", "empty_input")
    served = call.scorer(body.model)
    scores = await relevance(call, served, body.query, body.texts, normalize=not body.raw_scores)
    ranks: list[dict[str, Any]] = []
    for index, score in select_best(scores, body.top_n):
        rank: dict[str, Any] = {"index": index, "score": score}
        if body.return_text:
            rank["text"] = body.texts[index]
        ranks.append(rank)
    return json_answer(ranks)


async def similarities(call: Call, body: SimilarityBody) -> Response:
    """Answer ``POST /similarity``: cosines."""
    asked = body.parameters or SimilarityBody.Parameters()
    _check_cut(call, truncate=asked.truncate, direction=asked.truncation_direction)
    served = call.encoder()
    role = role_of(asked.prompt_name)
    inputs = body.inputs
    if not inputs.sentences:
        raise RequestError(400, "sentences are empty: send at least one", "empty_input")
    return json_answer(
        await similarity(call, served.model, inputs.source_sentence, inputs.sentences, role)
    )


async def tokenize(call: Call, body: TokenizeBody) -> Response:
    """Answer ``POST /tokenize``."""
    served = call.encoder()
    pieces = getattr(served.model, "token_pieces", None)
    if pieces is None:
        raise RequestError(501, f"{served.name!r} does not show its tokens", "unsupported")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    call.admit(len(texts))
    if body.prompt_name is not None:
        model, query = served.model, role_of(body.prompt_name) == "query"
        instruction = model.query_instruction if query else model.document_instruction
        texts = [instruction + text for text in texts]
    rows = await beside(pieces, texts, special_tokens=body.add_special_tokens)
    call.meter.texts += len(rows)
    return json_answer(
        [
            [
                {"id": id_, "text": text, "special": special, "start": start, "stop": stop}
                for id_, text, special, start, stop in row
            ]
            for row in rows
        ]
    )


def info(service: Service) -> dict[str, Any]:
    """Describe the model that TEI's routes ask, as ``GET /info`` does.

    Args:
        service: The server.

    Returns:
        Plain values: TEI's names, with what they mean here.
    """
    models = list(service.models)
    served = next((one for one in models if one.kind == "encoder"), models[0])
    options = service.options
    pooling = getattr(getattr(served.model, "options", None), "pooling", "cls")
    kind = {"embedding": {"pooling": pooling}} if served.kind == "encoder" else {"reranker": {}}
    return {
        "model_id": served.name,
        "model_sha": None,
        "model_dtype": str(getattr(served.model, "dtype", "float32")).removeprefix("torch."),
        "model_type": kind,
        "max_concurrent_requests": options.max_requests,
        "max_input_length": served.model.max_length,
        "max_batch_tokens": options.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": options.max_texts,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _texts(call: Call, body: EmbedBody) -> list[str]:
    _check_cut(call, truncate=body.truncate, direction=body.truncation_direction)
    if isinstance(body.inputs, str):
        return [body.inputs]
    if not body.inputs:
        raise RequestError(400, "inputs are empty: send at least one text", "empty_input")
    texts = [text for text in body.inputs if isinstance(text, str)]
    if not texts:
        raise RequestError(422, TOKEN_IDS, "token_ids")
    return texts


def _check_cut(call: Call, *, truncate: bool | None, direction: Direction) -> None:
    if direction.lower() == "left":
        raise RequestError(
            422,
            "texts are cut at their right end: truncation_direction must be Right",
            "unsupported",
        )
    if truncate is False:
        call.meter.may_cut = False


def _refuse_form(body: EmbedBody) -> None:
    if body.dimensions is not None or not body.normalize:
        raise RequestError(422, "dimensions and normalize are of /embed alone", "unsupported")
