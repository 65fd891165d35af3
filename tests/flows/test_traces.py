"""Traces of an incident, as a collector receives them from a process that OpenTelemetry has instrumented."""

import asyncio
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prefect.client.orchestration import get_client

from blocks.documents import write
from blocks.gemini import save_gemini
from compose.control_plane import ControlPlane
from compose.description import LabDescription
from compose.gemini_server import GeminiServer
from compose.gemini_wire import in_turn
from tasks.connecting import Live
from tests.flows.cache_fault import empty, fill
from tests.flows.full_cache import block
from tests.scripted_gemini import API_KEY, planned, secrets_of, step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
HEAL = """
import asyncio
from flows.remediate import remediate
asyncio.run(remediate("shop-cache", return_state=True))
"""
RUN_SECONDS = 120


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def spans(self) -> dict[str, Any]:
        """Every span by its name; none is there twice."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        found = [span for one in requests for resource in one.resource_spans for scope in resource.scope_spans for span in scope.spans]
        return {span.name: span for span in found}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def attributes(span: Any) -> dict[str, Any]:
    """What the span says, as plain values."""
    kinds = {"string_value": str, "int_value": int, "double_value": float, "bool_value": bool}
    found: dict[str, Any] = {}
    for one in span.attributes:
        kind = one.value.WhichOneof("value")
        found[one.key] = getattr(one.value, kind) if kind in kinds else [item.string_value for item in one.value.array_value.values]
    return found


async def heal(plane: ControlPlane, collector: Collector) -> None:
    """One remediation by a process of its own, instrumented as the documentation says."""
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    environment = {**plane.environment, **telemetry}
    process = await asyncio.create_subprocess_exec(
        str(instrument), sys.executable, "-c", HEAL, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()


async def test_an_incident_is_one_trace_of_prefects_spans_and_ours(
    opened: Live, lab: LabDescription, control_plane: ControlPlane, collector: Collector
) -> None:
    async with GeminiServer(in_turn(planned(step()))) as server, get_client() as client:
        await write(client, {"lab": block(server.port)})
        await fill(lab, 96)
        try:
            await heal(control_plane, collector)
        finally:
            await save_gemini(client, "lab", None)
            await empty(lab)
    spans = collector.spans()
    (run,) = (span for name, span in spans.items() if name.startswith("Heal shop-cache"))
    told = attributes(run)
    assert (told["prefect.run.type"], told["evenkeel.resource"], told["evenkeel.verdict"]) == ("flow", "shop-cache", "Completed")
    assert (told["evenkeel.symptoms"], told["evenkeel.planner"]) == (["memory_high"], "gemini:gemini-test")
    assert {span.trace_id for name, span in spans.items() if "shop-cache" in name or name.startswith(("tool", "chat"))} == {run.trace_id}
    for task, inside in (("redis_set_maxmemory on shop-cache", "tool redis_set_maxmemory"), ("plan for shop-cache", "chat gemini-test")):
        assert spans[task].parent_span_id == run.span_id
        assert spans[inside].parent_span_id == spans[task].span_id
        assert spans[task].start_time_unix_nano <= spans[inside].start_time_unix_nano
        assert spans[inside].end_time_unix_nano <= spans[task].end_time_unix_nano
    assert attributes(spans["tool redis_set_maxmemory"])["evenkeel.risk"] == "reversible"
    assert attributes(spans["chat gemini-test"])["gen_ai.usage.input_tokens"] > 100
    sent = b"".join(collector.bodies)
    assert not [secret for secret in {*secrets_of(lab), API_KEY} if secret.encode() in sent]
