"""Explanations in traces of OpenTelemetry."""

from __future__ import annotations

import json

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from m3_core import explain
from m3_core.explanations import is_traced, record_explanations, span_attributes
from m3_core.testing import FakeEncoder

DOCUMENT = "retrieval.documents.0.document"


@pytest.fixture
def traced(monkeypatch):
    """A provider of one's own, and what it has exported."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.fixture
def explanations():
    encoder = FakeEncoder()
    return [
        explain(encoder, "What do pandas eat?", text) for text in ("Pandas eat bamboo.", "Nothing.")
    ]


def check(attributes, explanations):
    assert attributes["input.value"] == "What do pandas eat?"
    assert attributes[f"{DOCUMENT}.id"] == "a"
    assert attributes[f"{DOCUMENT}.content"] == "Pandas eat bamboo."
    assert attributes[f"{DOCUMENT}.score"] == explanations[0].score
    said = json.loads(attributes[f"{DOCUMENT}.metadata"])["m3_explanation"]
    assert said["scores"] == explanations[0].scores
    assert [word["document"] for word in said["words"]] == ["Pandas", "eat"]
    assert sum(one["contribution"] for one in said["alignments"]) == pytest.approx(
        explanations[0].scores["colbert"]
    )
    assert json.loads(attributes["retrieval.documents.1.document.metadata"])


def test_nothing_is_recorded_outside_of_a_span(traced, explanations):
    assert not is_traced()
    assert not record_explanations(explanations)
    assert traced[1].get_finished_spans() == ()


def test_the_current_span_takes_them_where_no_tracer_is_set_up(traced, explanations):
    provider, exporter = traced
    with provider.get_tracer("test").start_as_current_span("mine"):
        assert is_traced()
        assert record_explanations(explanations, ["a", "b"])
    (span,) = exporter.get_finished_spans()
    check(span.attributes, explanations)


def test_a_child_span_takes_them_where_one_is(traced, explanations, monkeypatch):
    provider, exporter = traced
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    with provider.get_tracer("test").start_as_current_span("mine") as mine:
        assert record_explanations(explanations, ["a", "b"])
    child, parent = exporter.get_finished_spans()
    assert (child.name, parent.name) == ("m3.explain", "mine")
    assert child.parent.span_id == mine.get_span_context().span_id
    assert child.attributes["openinference.span.kind"] == "RETRIEVER"
    check(child.attributes, explanations)
    assert dict(parent.attributes) == {}


def test_ids_must_be_as_many(explanations):
    with pytest.raises(ValueError, match="2 explanations and 1 ids"):
        span_attributes(explanations, ["a"])
    assert span_attributes([]) == {}
