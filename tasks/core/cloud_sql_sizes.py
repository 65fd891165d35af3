"""What Cloud SQL's tiers are: how much memory, and how many connections that means. Source: cloud.google.com/sql/docs/postgres/flags."""

import re

SHARED_GIB = {"db-f1-micro": 0.6, "db-g1-small": 1.7}
CUSTOM = re.compile(r"db-custom-\d+-(?P<mib>\d+)")
OPTIMIZED = re.compile(r"db-perf-optimized-N-(?P<cpus>\d+)")
GIB_A_CPU = 8.0
# Memory in GiB from which on -> default of max_connections.
DEFAULTS = ((0.0, 25), (1.0, 50), (3.75, 100), (6.0, 200), (7.5, 400), (15.0, 500), (30.0, 600), (60.0, 800), (120.0, 1000))


def memory_gib(tier: str) -> float | None:
    """Memory of a tier in GiB; None for one that is not known here."""
    if tier in SHARED_GIB:
        return SHARED_GIB[tier]
    if (custom := CUSTOM.fullmatch(tier)) is not None:
        return int(custom["mib"]) / 1024
    if (optimized := OPTIMIZED.fullmatch(tier)) is not None:
        return int(optimized["cpus"]) * GIB_A_CPU
    return None


def default_connections(tier: str) -> int | None:
    """The max_connections of a tier where no flag sets another; None for a tier that is not known here."""
    memory = memory_gib(tier)
    if memory is None:
        return None
    return max(connections for least, connections in DEFAULTS if memory >= least)
