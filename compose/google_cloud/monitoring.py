"""Cloud Monitoring over gRPC. The handlers come from the client's own transport: the same methods, the same serializers."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.cloud.monitoring_v3 import ListTimeSeriesRequest, ListTimeSeriesResponse, TimeSeries
from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport

from compose.description import HOST
from compose.google_cloud.faults import Faults, LineCut, forbids, suffer
from compose.google_cloud.journal import Journal
from compose.google_cloud.monitoring_filter import FilterWrong, parse
from compose.google_cloud.points import Points, Series
from compose.google_cloud.project import Project
from compose.google_cloud.refusals import Refused, denied

MONITORING = "monitoring.googleapis.com"
LIST = "/google.monitoring.v3.MetricService/ListTimeSeries"
METHOD = "monitoring.projects.timeSeries.list"
PERMISSION = "monitoring.timeSeries.list"
MAX_POINTS = 100_000
GRACE_SECONDS = 0.5
# Without proto-plus around each message: ten times as fast, and a page has thousands.
PlainSeries: Any = type(TimeSeries.pb(TimeSeries()))
PlainPage: Any = type(ListTimeSeriesResponse.pb(ListTimeSeriesResponse()))


class _Recorder(grpc.Channel):  # type: ignore[misc]  # grpc has no types
    """Takes down what a transport would call, with its serializers."""

    def __init__(self) -> None:
        self.methods: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {}

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        self.methods[method] = request_serializer, response_deserializer
        return lambda *_, **__: None

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    unary_stream = stream_unary = stream_stream = subscribe = unsubscribe = _none

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method of the service; those that are not simulated say so."""

    def __init__(self, service: "Monitoring") -> None:
        recorder = _Recorder()
        transport = MetricServiceGrpcTransport(channel=recorder)
        # Its interceptor would ask for a method only when that is called.
        transport._logged_channel = recorder  # noqa: SLF001
        transport._stubs.clear()  # noqa: SLF001
        for name, member in vars(MetricServiceGrpcTransport).items():
            if isinstance(member, property):
                getattr(transport, name)
        self._service = service
        self._methods = recorder.methods

    def service(self, handler_call_details: Any) -> Any:
        """The handler of one call."""
        method = handler_call_details.method
        if method not in self._methods:
            return None
        serialize, deserialize = self._methods[method]
        # The bound class methods of one message class each: serialize's class reads requests, deserialize's writes answers.
        read = getattr(serialize, "__self__", None)
        write = getattr(deserialize, "__self__", None)
        answer = self._service.list_time_series if method == LIST else self._service.not_simulated(method)
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=None if read is None else read.deserialize,
            response_serializer=None if write is None or not hasattr(write, "serialize") else write.serialize,
        )


class Monitoring:
    """The one method that is served, and who may call it."""

    def __init__(self, project: Project, points: Points, journal: Journal, faults: Faults, cut: Callable[[int], None]) -> None:
        self._project = project
        self._points = points
        self._journal = journal
        self._faults = faults
        self._cut = cut

    async def list_time_series(self, request: ListTimeSeriesRequest, context: Any) -> Any:
        """Points of the newest first; Refused as its gRPC status."""
        try:
            return await self._listed(request, dict(context.invocation_metadata()))
        except LineCut:
            self._cut(int(context.peer().rsplit(":", 1)[1]))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        except Refused as refusal:
            await context.abort(grpc.StatusCode[refusal.rpc_status], refusal.message)
        return None

    def not_simulated(self, method: str) -> Callable[[Any, Any], Any]:
        """The answer of the other methods."""

        async def answer(_request: Any, context: Any) -> None:
            self._journal.blame("request", method, ["the simulator does not serve this method"])
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not simulated")

        return answer

    async def _listed(self, request: ListTimeSeriesRequest, metadata: dict[str, str]) -> Any:
        self._journal.count(METHOD)
        identity = self._project.access.caller(metadata.get("authorization", ""), MONITORING)
        faults = self._faults.meeting(METHOD, request.name, identity.described.name)
        for fault in faults:
            await suffer(fault)
        if request.name != f"projects/{self._project.id}" or forbids(faults, PERMISSION):
            raise denied("monitoring", PERMISSION, request.name)
        self._project.access.require(identity, "monitoring", PERMISSION, request.name)
        problems = _problems(request)
        try:
            chosen = parse(request.filter)
        except FilterWrong as error:
            problems.append(f"filter: {error}")
        if problems:
            self._journal.blame("request", METHOD, problems)
            raise Refused(400, "; ".join(problems))
        end = request.interval.end_time.timestamp()
        start = request.interval.start_time.timestamp() if "start_time" in request.interval else end
        lost = max((fault.metric_gap_seconds or 0 for fault in faults), default=0)
        series = [one for one in self._points.series(chosen.metric, start, end, lost) if chosen.chooses(one)]
        return _page(chosen.metric, series, request)


def _problems(request: ListTimeSeriesRequest) -> list[str]:
    """What Monitoring would refuse, or what is not simulated."""
    found = []
    if "end_time" not in request.interval:
        found.append("interval.end_time: missing")
    elif "start_time" in request.interval and request.interval.start_time > request.interval.end_time:
        found.append("interval.start_time: after the end")
    if request.order_by:
        found.append("order_by: must be left blank")
    if "aggregation" in request or "secondary_aggregation" in request:
        found.append("aggregation: the simulator does not aggregate")
    if request.page_token and not request.page_token.isdecimal():
        found.append("page_token: not one of ours")
    return found


def _page(kind: str, series: list[Series], request: ListTimeSeriesRequest) -> Any:
    """As many series as fit: a page holds so many points, or so many series where only their headers are asked for."""
    headers_only = request.view == ListTimeSeriesRequest.TimeSeriesView.HEADERS
    room = min(request.page_size or MAX_POINTS, MAX_POINTS)
    at, taken = int(request.page_token or 0), []
    while at < len(series) and room > 0:
        room -= 1 if headers_only else len(series[at].points)
        taken.append(_message(kind, series[at], headers_only=headers_only))
        at += 1
    return PlainPage(time_series=taken, next_page_token=str(at) if at < len(series) else "")


def _message(kind: str, series: Series, *, headers_only: bool) -> Any:
    whole = series.metric.whole
    points = [
        {
            "interval": {"start_time": _stamp(at), "end_time": _stamp(at)},
            "value": {"int64_value": round(value)} if whole else {"double_value": value},
        }
        for at, value in ([] if headers_only else series.points)
    ]
    return PlainSeries(
        metric={"type": kind, "labels": series.metric_labels},
        resource={"type": series.metric.resource, "labels": series.resource_labels},
        metric_kind="GAUGE",
        value_type="INT64" if whole else "DOUBLE",
        points=points,
    )


def _stamp(at: float) -> dict[str, int]:
    return {"seconds": int(at), "nanos": int(at % 1 * 1e6) * 1000}


@contextlib.asynccontextmanager
async def serving_monitoring(service: Monitoring, certificate: Path) -> AsyncIterator[int]:
    """Serve it on a free port, which is given, over TLS with CERTIFICATE.crt and .key."""
    key, chain = Path(f"{certificate}.key").read_bytes(), Path(f"{certificate}.crt").read_bytes()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handlers(service),))
    port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(GRACE_SECONDS)
