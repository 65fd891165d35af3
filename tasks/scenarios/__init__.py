"""Scenarios, one module a service, one generator a fault."""

NOT_INJECTED: dict[int, str] = {}
"""Numbers of the catalogue of faults that nothing here injects, with the reason."""
