"""The third of the catalogue that the gate tries: every service, every way to end, and every tool that a rule uses."""

IN_THE_GATE: tuple[str, ...] = ("redis_memory_pressure",)
