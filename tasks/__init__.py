"""What flows call: thin Prefect tasks over plain functions, and the catalogue of probes, tools, runbooks and scenarios."""
