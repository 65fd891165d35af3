"""Whether a call of a resource's baseline would change anything, as far as what is measured tells."""

from collections.abc import Mapping

from pydantic import JsonValue

from tasks.core.declare import Tool
from tasks.core.models import Observation


def is_in_force(tool: Tool, args: Mapping[str, JsonValue], observation: Observation) -> bool | None:
    """Whether what the call sets is so already; None where the reading does not hold every argument."""
    measured = {growth.argument: observation.reading.values.get(growth.measured) for growth in tool.growth}
    if not args or any(measured.get(name) is None for name in args):
        return None
    return all(measured[name] == wanted for name, wanted in args.items())
