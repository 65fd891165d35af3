"""What is done about a virtual machine, least destructive first. Where a rule can't tell, it yields nothing, and a person is asked."""

from collections.abc import Iterator

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.runbooks.steps import evidence, step

REPAIR_SECONDS = 600.0
FIGURES = ("state", "ended_by", "inside", "source", "age_seconds", "memory_percent", "cpu_sustained_percent", "largest")


@runbook(service=Kind.COMPUTE_ENGINE, symptoms={"terminated"}, title="The machine is off")
def compute_terminated(context: Context) -> Iterator[Remedy]:
    """Start it: nobody stopped it, and its disks are as they were."""
    by = context.observation.reading.values.get("ended_by") or "itself"
    why = f"the machine is off by {by}, no one asked for that, and no label says that it is meant to be"
    started = step(context, "gcp_compute_start_instance", why)
    yield Remedy("the machine was switched off unasked", (started,), "state RUNNING", _evidence(context))


@runbook(service=Kind.COMPUTE_ENGINE, symptoms={"memory_high"}, title="The machine's memory is used up")
def compute_memory(context: Context) -> Iterator[Remedy]:
    """Restart it: whatever holds the memory ends, and what is meant to run is started with the machine."""
    values = context.observation.reading.values
    why = f"{values.get('memory_percent')} % of the memory is in use, and a machine can't be given more while it runs"
    restarted = step(context, "gcp_compute_restart_instance", why)
    yield Remedy("the machine's memory is used up", (restarted,), "memory_percent below its threshold", _evidence(context))


@runbook(service=Kind.COMPUTE_ENGINE, symptoms={"cpu_high"}, title="The machine's processors are used up")
def compute_cpu(context: Context) -> Iterator[Remedy]:
    """Restart it: whatever runs away ends, and what is meant to run is started with the machine."""
    values = context.observation.reading.values
    why = f"{values.get('cpu_sustained_percent')} % of the processors has been in use for ten seconds and more"
    restarted = step(context, "gcp_compute_restart_instance", why)
    yield Remedy("a process runs away with the processors", (restarted,), "cpu_percent below its threshold", _evidence(context))


@runbook(service=Kind.COMPUTE_ENGINE, symptoms={"unreachable_inside"}, title="Nothing in the machine answers")
def compute_hangs(context: Context) -> Iterator[Remedy]:
    """Restart it: from inside nothing can be done any more, so it is reset."""
    why = "Google runs it, SSH takes connections and says nothing: what is inside hangs"
    restarted = step(context, "gcp_compute_restart_instance", why)
    yield Remedy("the machine hangs", (restarted,), "inside answers", _evidence(context))


@runbook(service=Kind.COMPUTE_ENGINE, symptoms={"repairing"}, title="Google repairs the machine's host")
def compute_in_transition(context: Context) -> Iterator[Remedy]:
    """Wait: Google starts the machine again by itself."""
    yield Remedy("the machine's host failed, and Google is at work", (), "state RUNNING", _evidence(context), REPAIR_SECONDS)


@runbook(
    service=Kind.COMPUTE_ENGINE,
    symptoms={"missing", "ssh_unreachable", "disk_high"},
    title="The machine is gone, can't be looked into, or its disk is full: left to a person",
)
def compute_left_to_a_person(_context: Context) -> Iterator[Remedy]:
    """Do nothing: no rule knows what may be deleted, where the way is broken, or what the machine was made from."""
    yield from ()


def _evidence(context: Context) -> tuple[str, ...]:
    return evidence(context.observation.reading.values, *FIGURES)
