"""Orchestration: order, branches and subflows. What they call stands in `tasks`."""
