"""Ready clients, one module a service, that probes and tools receive."""
