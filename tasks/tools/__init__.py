"""Tools, one module a service: typed actions that read their effect back."""
