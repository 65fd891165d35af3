"""Runbooks, one module a service: symptom to remedies, least destructive first."""
