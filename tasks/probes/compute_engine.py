"""How a virtual machine is measured: by Google's word, from inside over SSH, and by Cloud Monitoring where SSH gives nothing."""

import asyncio
import time

from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.compute_engine import ComputeClient, maintenance_of, seconds_of
from tasks.clients.google_metrics import Point
from tasks.clients.google_snapshots import CloudInstance
from tasks.core.compute_judgement import judge
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tasks.core.models import Reading

MONITORING_SECONDS = 4.0
USED = 'metric.labels.state = "used"'
METRICS = {
    # value of the reading: metric, filter, factor
    "cpu_percent": ("compute.googleapis.com/instance/cpu/utilization", "", 100.0),
    "memory_percent": ("agent.googleapis.com/memory/percent_used", USED, 1.0),
    "disk_percent": ("agent.googleapis.com/disk/percent_used", USED, 1.0),
}
NO_FIGURES: dict[str, JsonValue] = dict.fromkeys(METRICS)
NO_ANSWER = (Unreachable, OutcomeUnknown, ToolFailed, NotApplicable, ProbeBroken)


@probe(
    service=Kind.COMPUTE_ENGINE,
    title="Compute Engine",
    judge=judge,
    headline="cpu_percent",
    timeout_seconds=12,
    trends={"memory_percent": "memory_high", "disk_percent": "disk_high"},
    permissions={"compute.instances.list", "compute.zoneOperations.list", "monitoring.timeSeries.list"},
)
async def measure(client: ComputeClient, resource: Resource) -> Reading:
    """Measure a machine: one list call for all machines, a script over the kept SSH connection, Cloud Monitoring as the fallback.

    Values:
      state             Google's word: RUNNING, TERMINATED, STAGING, STOPPING, SUSPENDED, REPAIRING ..., or missing
      maintenance       text of the label evenkeel-maintenance, null without one
      zone, machine_type, started_at
      stopped_by        who asked for the stop, null where nobody did; ended_by: what else ended it (while it is off)
      inside            answers, hangs (SSH takes connections and says nothing) or closed; null without cloud.ssh
      source            where the figures are from: ssh, monitoring, or null where there are none
      age_seconds       age of the oldest of them: 0 over SSH, minutes from Cloud Monitoring
      ssh_error         why SSH gave none, and metrics_error: why Cloud Monitoring gave none
      cpu_percent       processors in use, over a second or up to five of them (ssh), or a minute (monitoring)
      cpu_sustained_percent       the same over ten seconds and more (ssh), null until so much was seen; monitoring: as cpu_percent
      memory_percent, memory_used_mib, memory_total_mib       what could not be given to a new process
      disk_percent      of the root file system (ssh), or the fullest one (monitoring)
      largest           the three processes with the most memory, uptime_seconds (ssh alone)

    ProbeBroken: the API does not answer or refuses, or who stopped the machine can't be told.
    """
    try:
        found = await client.listed()
        if found is None:
            return Reading(values={"state": "missing"})
        values = _described(found)
        if found.state == "TERMINATED":
            ended = await client.ended(found)
            return Reading(values=values | {"stopped_by": ended.stopped_by, "ended_by": ended.ended_by})
    except (Unreachable, ToolFailed, NotApplicable, OutcomeUnknown) as error:
        raise ProbeBroken(str(error)) from error
    if found.state != "RUNNING":
        return Reading(values=values)
    client.is_up()
    over_ssh = await _over_ssh(client)
    if over_ssh.get("source") == "ssh":
        return Reading(values=values | over_ssh)
    return Reading(values=values | over_ssh | await _by_monitoring(client, found))


def _described(found: CloudInstance) -> dict[str, JsonValue]:
    return {
        "state": found.state,
        "maintenance": maintenance_of(found.labels),
        "zone": found.location,
        "machine_type": found.raw.machine_type.rpartition("/")[2],
        "started_at": found.raw.last_start_timestamp or None,
    }


async def _over_ssh(client: ComputeClient) -> dict[str, JsonValue]:
    if client.ssh is None:
        return {"inside": None, "source": None}
    try:
        inside, used = await client.inside()
    except NO_ANSWER as error:
        is_there = isinstance(error, ToolFailed | ProbeBroken)  # somebody answered, though not as hoped
        return {"inside": "answers" if is_there else await _greeted(client), "source": None, "ssh_error": str(error)}
    uptime = max(round(time.time() - inside.booted_at), 0)
    cpu: dict[str, JsonValue] = {"cpu_percent": used.now, "cpu_sustained_percent": used.sustained}
    return {"inside": "answers", "source": "ssh", "age_seconds": 0, "uptime_seconds": uptime, **cpu, **inside.values}


async def _greeted(client: ComputeClient) -> str:
    try:
        return await client.greeting()
    except NO_ANSWER:
        return "closed"


async def _by_monitoring(client: ComputeClient, found: CloudInstance) -> dict[str, JsonValue]:
    """The newest points that Cloud Monitoring shows; those from before the last start are of another boot."""
    try:
        async with asyncio.timeout(MONITORING_SECONDS):
            asked = [client.cloud.metrics(Kind.COMPUTE_ENGINE, metric, where) for metric, where, _ in METRICS.values()]
            answers = await asyncio.gather(*asked)
    except (EvenkeelError, TimeoutError) as error:
        return {**NO_FIGURES, "metrics_error": str(error) or f"Cloud Monitoring did not answer within {MONITORING_SECONDS:g} s"}
    started_at = seconds_of(found.raw.last_start_timestamp) or 0
    points: dict[str, Point] = {}
    for name, answer in zip(METRICS, answers, strict=True):
        point = answer.get(str(found.raw.id))
        if point is not None and time.time() - point.age_seconds >= started_at:
            points[name] = point
    if not points:
        return {**NO_FIGURES, "metrics_error": "Cloud Monitoring has no points of the machine since it was started"}
    figures: dict[str, JsonValue] = {name: round(point.value * METRICS[name][2], 1) for name, point in points.items()}
    figures["cpu_sustained_percent"] = figures.get("cpu_percent")
    return {**NO_FIGURES, **figures, "source": "monitoring", "age_seconds": max(point.age_seconds for point in points.values())}
