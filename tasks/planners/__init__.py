"""Planners: from a context to a plan."""
