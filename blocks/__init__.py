"""Typed configuration and credentials, saved in Prefect."""
