"""Cloud Monitoring's points: sampled from the planes, and made up, but steady, for instances that are records alone."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from compose.google_cloud.compute_engine import numeric_id
from compose.google_cloud.memorystore import full_name
from compose.google_cloud.planes import PlaneFailed
from compose.google_cloud.project import Machine, Project, RedisInstance, SqlInstance, number_of

KEPT_SECONDS = 3600.0
STEADY_STEP_SECONDS = 60
Instance = Machine | SqlInstance | RedisInstance
Labels = dict[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric type: which resource it belongs to, which measure it shows, and with which labels."""

    resource: str
    measure: Callable[[Mapping[str, float]], float]
    labels: Labels = field(default_factory=dict)
    whole: bool = False
    """Its values are INT64, not DOUBLE."""


def _of(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda measures: measures[name]


def _rest_of(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda measures: 100 - measures[name]


MACHINE, DATABASE, CACHE = "gce_instance", "cloudsql_database", "redis_instance"
METRICS: dict[str, tuple[Metric, ...]] = {
    "compute.googleapis.com/instance/cpu/utilization": (Metric(MACHINE, _of("cpu"), {"instance_name": "{name}"}),),
    "agent.googleapis.com/memory/percent_used": (
        Metric(MACHINE, _of("memory_percent"), {"state": "used"}),
        Metric(MACHINE, _rest_of("memory_percent"), {"state": "free"}),
    ),
    "agent.googleapis.com/disk/percent_used": (
        Metric(MACHINE, _of("disk_percent"), {"device": "/dev/sda1", "state": "used"}),
        Metric(MACHINE, _rest_of("disk_percent"), {"device": "/dev/sda1", "state": "free"}),
    ),
    "cloudsql.googleapis.com/database/cpu/utilization": (Metric(DATABASE, _of("cpu")),),
    "cloudsql.googleapis.com/database/memory/utilization": (Metric(DATABASE, _of("memory")),),
    "cloudsql.googleapis.com/database/disk/utilization": (Metric(DATABASE, _of("disk")),),
    "cloudsql.googleapis.com/database/postgresql/num_backends": (
        Metric(DATABASE, _of("backends"), {"database": "{database}"}, whole=True),
    ),
    "redis.googleapis.com/stats/memory/usage_ratio": (Metric(CACHE, _of("usage_ratio")),),
    "redis.googleapis.com/stats/memory/system_memory_usage_ratio": (Metric(CACHE, _of("system_memory_usage_ratio")),),
    "redis.googleapis.com/clients/connected": (Metric(CACHE, _of("clients"), {"role": "primary"}, whole=True),),
}
RESOURCE_LABELS = {
    MACHINE: ("project_id", "zone", "instance_id"),
    DATABASE: ("project_id", "region", "database_id"),
    CACHE: ("project_id", "region", "instance_id", "node_id"),
}
STEADY: dict[str, dict[str, float]] = {
    MACHINE: {"cpu": 0.12, "memory_percent": 41.0, "disk_percent": 23.0},
    DATABASE: {"cpu": 0.08, "memory": 0.35, "disk": 0.2, "backends": 7},
    CACHE: {"usage_ratio": 0.3, "system_memory_usage_ratio": 0.32, "clients": 5},
}


@dataclass(frozen=True)
class Series:
    """One time series; its points are (time, value), the newest first."""

    metric: Metric
    resource_labels: Labels
    metric_labels: Labels
    points: list[tuple[float, float]]


class Points:
    """What was sampled."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._samples: dict[str, deque[tuple[float, dict[str, float]]]] = {}

    async def sample_forever(self) -> None:
        """Measure every plane, again and again: as often as the ingest delay makes worth while, and at least once a minute."""
        while True:
            await self.sample()
            await asyncio.sleep(min(60.0, max(1.0, self._project.operations.delays.ingest_seconds / 4)))

    async def sample(self) -> None:
        """Measure every plane once; one that gives nothing has a gap."""
        await asyncio.gather(*(self._measure(instance) for _, instance in self._instances() if instance.plane is not None))

    def forget(self) -> None:
        """All samples."""
        self._samples.clear()

    async def _measure(self, instance: Instance) -> None:
        assert instance.plane is not None
        if not instance.plane.running:
            return
        try:
            measured = await instance.plane.measure()
        except PlaneFailed:
            return
        if measured is None:
            return
        now = time.time()
        samples = self._samples.setdefault(instance.name, deque())
        samples.append((now, {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}))
        while samples[0][0] < now - KEPT_SECONDS:
            samples.popleft()

    def _instances(self) -> Iterator[tuple[str, Instance]]:
        for machine in self._project.machines.values():
            yield MACHINE, machine
        for database in self._project.databases.values():
            yield DATABASE, database
        for cache in self._project.caches.values():
            yield CACHE, cache

    def series(self, kind: str, start: float, end: float, lost_seconds: float = 0) -> list[Series]:
        """Every series of a metric type with what can be read of it by now in (start, end]."""
        visible_until = min(end, time.time() - max(lost_seconds, self._project.operations.delays.ingest_seconds))
        found = []
        for metric in METRICS[kind]:
            for resource, instance in self._instances():
                if resource != metric.resource:
                    continue
                seen = [(at, metric.measure(values)) for at, values in self._of(resource, instance, start, visible_until)]
                if seen:
                    found.append(Series(metric, self._labels(instance), _filled(metric.labels, instance), seen))
        return found

    def _of(self, resource: str, instance: Instance, start: float, until: float) -> Iterator[tuple[float, dict[str, float]]]:
        if instance.plane is not None:
            samples = self._samples.get(instance.name, deque())
            yield from ((at, values) for at, values in reversed(samples) if start < at <= until)
        elif not isinstance(instance, Machine) or instance.status == "RUNNING":
            # The same for everybody would hide that a reader mixes instances up.
            share = 0.9 + number_of(instance.name) % 20 / 100
            values = {name: value * share for name, value in STEADY[resource].items()}
            newest = int(until // STEADY_STEP_SECONDS * STEADY_STEP_SECONDS)
            yield from ((float(at), values) for at in range(newest, int(start), -STEADY_STEP_SECONDS))

    def _labels(self, instance: Instance) -> Labels:
        project = self._project
        common = {"project_id": project.id}
        match instance:
            case Machine():
                return common | {"zone": instance.described.zone, "instance_id": numeric_id(instance.name)}
            case SqlInstance():
                return common | {"region": instance.described.region, "database_id": f"{project.id}:{instance.name}"}
            case RedisInstance():
                return common | {"region": instance.described.region, "instance_id": full_name(project, instance), "node_id": "node-0"}


def _filled(labels: Labels, instance: Instance) -> Labels:
    database = instance.described.database if isinstance(instance, SqlInstance) else ""
    return {name: value.format(name=instance.name, database=database) for name, value in labels.items()}
