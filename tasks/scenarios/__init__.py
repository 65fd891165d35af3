"""Scenarios, one module a service, one generator a fault."""
