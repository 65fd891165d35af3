"""The kinds of resources."""

from enum import StrEnum


class Kind(StrEnum):
    """What a resource is; probes, tools and runbooks are declared for a kind."""

    REDIS = "redis"
    POSTGRES = "postgres"
    NGINX = "nginx"
    HTTP = "http"
    CONTAINER = "container"
    COMPUTE_ENGINE = "compute_engine"
    CLOUD_SQL = "cloud_sql"
    MEMORYSTORE = "memorystore"


CLOUD_KINDS = frozenset({Kind.COMPUTE_ENGINE, Kind.CLOUD_SQL, Kind.MEMORYSTORE})
"""What Google Cloud runs: named by its instance, and steered through an API in place of a runtime."""
