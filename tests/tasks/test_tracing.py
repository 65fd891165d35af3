"""What a span of ours tells of an error: its type, and nothing of what it says."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tasks import tracing
from tasks.core.errors import ToolFailed
from tasks.tracing import describe, span


def fail(error: BaseException) -> None:
    with span("tool x", {"evenkeel.tool": "x"}):
        describe({"evenkeel.verdict": "Failed"})
        raise error


@pytest.mark.parametrize("error", [ToolFailed("refused: password=hunter2"), asyncio.CancelledError("hunter2")])
def test_an_error_is_named_by_its_type_alone(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("test"))
    with pytest.raises(type(error)):
        fail(error)
    (found,) = exporter.get_finished_spans()
    provider.shutdown()
    assert dict(found.attributes or {}) == {"evenkeel.tool": "x", "evenkeel.verdict": "Failed", "error.type": type(error).__name__}
    assert "hunter2" not in found.to_json()


def test_without_an_sdk_nothing_is_lost() -> None:
    with span("tool x", {"evenkeel.tool": "x"}) as opened:
        describe({"evenkeel.verdict": "Completed"})
        assert not opened.is_recording()
