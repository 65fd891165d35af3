"""Scenarios, one module a service, one generator a fault."""

NOT_INJECTED: dict[int, str] = {
    9: "a wrong image tag shows only when a container is made anew, and no tool makes containers: whoever deploys puts the digest back",
}
"""Numbers of the catalogue of faults that nothing here injects, with the reason."""
