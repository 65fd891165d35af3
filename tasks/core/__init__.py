"""Pure decisions: no Prefect, no I/O, no clock, no environment."""
