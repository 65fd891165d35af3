"""When a virtual machine counts as unwell: from its reading alone. Pure."""

from blocks.schema import Resource
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number

MEMORY_PERCENT = 90.0
"""Unless the inventory says otherwise: a machine has no more to give, and slows down before that."""
OLDEST_SECONDS = 600.0
"""A point of Cloud Monitoring that is older tells nothing of now."""


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding.

    A label of maintenance excuses everything, and so does whoever stopped the machine.
    """
    values = reading.values
    state = values.get("state")
    if values.get("maintenance") is not None:
        return ()
    if state == "missing":
        return (failed("missing", f"the project has no instance {resource.address}"),)
    if state == "REPAIRING":
        return (failed("repairing", "Google repairs the machine's host, and starts the machine again by itself"),)
    if state == "TERMINATED":
        return () if values.get("stopped_by") is not None else (failed("terminated", f"the machine is off{_ended(values)}"),)
    if state != "RUNNING":
        return ()  # on its way to another state, or suspended by somebody
    found = (_inside(values), _memory(values, resource), _cpu(values, resource), _disk(values, resource))
    return tuple(finding for finding in found if finding is not None)


def memory_threshold(resource: Resource) -> float:
    """In percent."""
    given = "memory_percent" in resource.thresholds.model_fields_set
    return resource.thresholds.memory_percent if given else MEMORY_PERCENT


def _ended(values: Values) -> str:
    why = values.get("ended_by")
    return f", by {why}, and nobody stopped it" if why else ", and nobody stopped it"


def _inside(values: Values) -> Finding | None:
    match values.get("inside"):
        case "hangs":
            summary = "Google runs the machine, and nothing in it answers: SSH takes connections and says nothing"
            return failed("unreachable_inside", f"{summary}{_said(values)}")
        case "closed" if _current(values, "memory_percent") is None:
            summary = "SSH can't be reached, and Cloud Monitoring has no figures from inside: the machine, or the way to it, is broken"
            return degraded("ssh_unreachable", f"{summary}{_said(values)}")
        case _:
            return None  # where Cloud Monitoring still hears of it, only the way there is broken; the reading says so


def _said(values: Values) -> str:
    return f" ({values['ssh_error']})" if values.get("ssh_error") else ""


def _memory(values: Values, resource: Resource) -> Finding | None:
    share, threshold = _current(values, "memory_percent"), memory_threshold(resource)
    if share is None or share < threshold:
        return None
    used = values.get("memory_used_mib")
    amount = f", {used} of {values.get('memory_total_mib')} MiB" if used is not None else ""
    return degraded("memory_high", f"{share:g} % of the memory is in use{amount} (threshold {threshold:g} %){_taken(values)}")


def _cpu(values: Values, resource: Resource) -> Finding | None:
    share, threshold = _current(values, "cpu_sustained_percent"), resource.thresholds.cpu_percent
    if share is None or share < threshold:
        return None
    return degraded("cpu_high", f"{share:g} % of the processors is in use for 10 s and more (threshold {threshold:g} %){_taken(values)}")


def _disk(values: Values, resource: Resource) -> Finding | None:
    share, threshold = _current(values, "disk_percent"), resource.thresholds.disk_percent
    if share is None or share < threshold:
        return None
    return degraded("disk_high", f"{share:g} % of the disk is in use (threshold {threshold:g} %){_taken(values)}")


def _current(values: Values, name: str) -> float | None:
    age = number(values, "age_seconds")
    return None if age is not None and age > OLDEST_SECONDS else number(values, name)


def _taken(values: Values) -> str:
    """Said where the figures are not of this moment."""
    age = number(values, "age_seconds")
    return f", by Cloud Monitoring {age:.0f} s ago" if values.get("source") == "monitoring" and age is not None else ""
