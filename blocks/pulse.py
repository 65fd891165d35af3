"""The event by which a monitor shows that it sweeps, and after whose absence people are told."""

SWEPT = "evenkeel.monitor.swept"
MONITORS = "evenkeel.monitor"


def monitor_id(key: str) -> str:
    """A monitor as the resource of an event, by the name under which the records know it."""
    return f"{MONITORS}.{key.replace('/', '.')}"
