"""Probes, one module a service: what is measured, and how it is judged."""
