"""Explanations in traces, under the names of OpenInference, where OpenTelemetry is there."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m3_core.explanations.explanation import Explanation

SPAN_NAME = "m3.explain"
# Of the words of one document, in a trace.
_MOST = 50


def is_traced() -> bool:
    """Say whether a span of OpenTelemetry is recording what is done here and now.

    Returns:
        False too where OpenTelemetry is not installed, or nobody has imported it.
    """
    # Who traces has imported it.
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace

    return trace.get_current_span().is_recording()


def record_explanations(
    explanations: Sequence[Explanation], ids: Sequence[str | None] | None = None
) -> bool:
    """Put explanations of one query's documents into the trace that is being recorded.

    They go into a span of their own, ``"m3.explain"``, a child of the current one, so that they
    meet no attributes of others; where no tracer is set up for it, into the current span.

    Args:
        explanations: Of the documents, best first.
        ids: The documents' ids.

    Returns:
        Whether a span was recording; if none was, nothing is done.
    """
    if not explanations or not is_traced():
        return False
    from opentelemetry import trace

    attributes = span_attributes(explanations, ids)
    with trace.get_tracer("m3_core").start_as_current_span(SPAN_NAME) as own:
        if own.is_recording():
            own.set_attributes({"openinference.span.kind": "RETRIEVER", **attributes})
            return True
    trace.get_current_span().set_attributes(attributes)
    return True


def span_attributes(
    explanations: Sequence[Explanation], ids: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Name explanations as OpenInference names what a retriever has found.

    Args:
        explanations: Of the documents, best first.
        ids: The documents' ids.

    Returns:
        ``input.value``, the query; and of each document N under ``retrieval.documents.N.document``
        its ``id``, ``content``, ``score``, and as ``metadata`` in JSON ``{"m3_explanation":
        {"scores", "weights", "words", "alignments"}}``.

    Raises:
        ValueError: There is not one id an explanation.
    """
    if ids is not None and len(ids) != len(explanations):
        raise ValueError(f"there are {len(explanations)} explanations and {len(ids)} ids")
    attributes: dict[str, Any] = {}
    if explanations:
        attributes["input.value"] = explanations[0].query
    for number, one in enumerate(explanations):
        prefix = f"retrieval.documents.{number}.document"
        own = None if ids is None else ids[number]
        if own is not None:
            attributes[f"{prefix}.id"] = own
        attributes[f"{prefix}.content"] = one.document
        attributes[f"{prefix}.score"] = one.score
        said = json.dumps({"m3_explanation": _summary(one)}, ensure_ascii=False)
        attributes[f"{prefix}.metadata"] = said
    return attributes


def _summary(explanation: Explanation) -> dict[str, Any]:
    return {
        "scores": explanation.scores,
        "weights": explanation.weights,
        "words": [
            {
                "query": word.query,
                "document": word.document,
                "query_weight": word.query_weight,
                "document_weight": word.document_weight,
                "contribution": word.contribution,
            }
            for word in explanation.words[:_MOST]
        ],
        "alignments": [
            {
                "query": one.query,
                "document": one.document,
                "similarity": one.similarity,
                "contribution": one.contribution,
            }
            for one in explanation.alignments[:_MOST]
        ],
        "truncated": explanation.truncated,
    }
