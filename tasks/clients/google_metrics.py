"""Cloud Monitoring: the newest point of a metric, for all instances of a kind by one query."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocks.kinds import Kind

if TYPE_CHECKING:
    from tasks.clients.google_access import GoogleCloud

SHARED_SECONDS = 5.0
LOOK_BACK_SECONDS = 900.0
RESOURCES = {
    Kind.COMPUTE_ENGINE: ("gce_instance", "instance_id"),
    Kind.CLOUD_SQL: ("cloudsql_database", "database_id"),
    Kind.MEMORYSTORE: ("redis_instance", "instance_id"),
}


@dataclass(frozen=True)
class Point:
    """A measured value, and how old it is: Google shows points minutes after they were taken."""

    value: float
    age_seconds: float


@dataclass
class Metrics:
    """What was asked of late, shared by all who ask."""

    _asked: dict[tuple[str, str], tuple[float, asyncio.Task[Mapping[str, Point]]]] = field(default_factory=dict)

    async def newest(self, cloud: "GoogleCloud", kind: Kind, metric: str, where: str) -> Mapping[str, Point]:
        """As `GoogleCloud.metrics` says."""
        held = self._asked.get((metric, where))
        if held is None or (held[1].done() and time.monotonic() - held[0] > SHARED_SECONDS):
            held = time.monotonic(), asyncio.ensure_future(self._queried(cloud, kind, metric, where))
            held[1].add_done_callback(lambda task: task.cancelled() or task.exception())
            self._asked[metric, where] = held
        return await asyncio.shield(held[1])

    async def _queried(self, cloud: "GoogleCloud", kind: Kind, metric: str, where: str) -> Mapping[str, Point]:
        await asyncio.to_thread(lambda: cloud.metric_service)  # imports outside of the call's deadline
        return await cloud.call(f"metric {metric}", lambda timeout: _query(cloud, kind, metric, where, timeout))


def _query(cloud: "GoogleCloud", kind: Kind, metric: str, where: str, timeout: float) -> dict[str, Point]:
    from google.cloud import monitoring_v3

    resource, label = RESOURCES[kind]
    now = time.time()
    request = monitoring_v3.ListTimeSeriesRequest(
        name=f"projects/{cloud.project}",
        filter=" AND ".join(filter(None, (f'metric.type = "{metric}"', f'resource.type = "{resource}"', where))),
        interval={"start_time": {"seconds": int(now - LOOK_BACK_SECONDS)}, "end_time": {"seconds": int(now)}},
        view=monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.FULL,
    )
    found: dict[str, Point] = {}
    for series in cloud.metric_service.list_time_series(request, timeout=timeout, retry=None):
        # The plain messages: those around them cost a second for a few thousand points.
        plain = monitoring_v3.TimeSeries.pb(series)
        if not plain.points:
            continue
        newest = max(plain.points, key=lambda point: point.interval.end_time.seconds)
        value = float(getattr(newest.value, newest.value.WhichOneof("value")))
        age = round(max(now - newest.interval.end_time.ToNanoseconds() / 1e9, 0), 1)
        name = plain.resource.labels[label]
        if name not in found or value > found[name].value:
            found[name] = Point(value, age)
    return found
