"""From where on a resource counts as degraded."""

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from blocks.kinds import Kind
from blocks.model import Model


class Thresholds(Model):
    """Limits above which a resource counts as degraded; each applies to the kinds that THRESHOLDS_OF_KIND names."""

    memory_percent: float = Field(
        95, gt=0, le=100, description="Share of the memory in use, in percent (Redis, container, cloud; Compute Engine: 90 by default)."
    )
    clients_percent: float = Field(90, gt=0, le=100, description="Share of maxclients connected, in percent (Redis, Memorystore).")
    connections_percent: float = Field(
        80, gt=0, le=100, description="Share of the connections in use, in percent (PostgreSQL, Nginx, Cloud SQL)."
    )
    disk_percent: float = Field(90, gt=0, le=100, description="Share of the disk in use, in percent (Compute Engine, Cloud SQL).")
    idle_in_transaction_seconds: float = Field(60, gt=0, description="Oldest idle transaction, in seconds (PostgreSQL).")
    blocked_seconds: float = Field(10, gt=0, description="Longest wait for a lock, in seconds (PostgreSQL).")
    query_seconds: float = Field(3600, gt=0, description="Longest running statement of a client, in seconds (PostgreSQL, Cloud SQL).")
    scans_per_second: float = Field(10, gt=0, description="How often a large table is read whole, per second (PostgreSQL).")
    dead_rows_percent: float = Field(50, gt=0, le=100, description="Dead rows of a table without autovacuum, in percent (PostgreSQL).")
    retained_wal_mib: float = Field(5120, gt=0, description="WAL that an unused replication slot keeps, in MiB (PostgreSQL).")
    latency_seconds: float = Field(2, gt=0, description="Time for the symptom check to answer, in seconds.")
    horizon_seconds: float = Field(
        600, ge=0, description="How far ahead a share that rises is predicted to cross its threshold, in seconds; 0: not at all."
    )
    cpu_percent: float = Field(95, gt=0, le=100, description="Share of the CPUs in use, in percent (container, Compute Engine, Cloud SQL).")
    throttled_percent: float = Field(50, gt=0, le=100, description="Share of the scheduler's periods that were cut short (container).")
    restarts_per_hour: int = Field(3, ge=1, description="Restarts by itself within an hour (container).")

    @model_serializer(mode="wrap")
    def _only_what_was_given(self, full: SerializerFunctionWrapHandler) -> dict[str, float]:
        # A default written out would read back as given, also for kinds that it does not apply to.
        return {name: value for name, value in full(self).items() if name in self.model_fields_set}


_OF_POSTGRES = ("query_seconds", "scans_per_second", "dead_rows_percent", "retained_wal_mib")
THRESHOLDS_OF_KIND: dict[Kind, frozenset[str]] = {
    Kind.REDIS: frozenset({"memory_percent", "clients_percent", "latency_seconds", "horizon_seconds"}),
    Kind.POSTGRES: frozenset(
        {"connections_percent", "idle_in_transaction_seconds", "blocked_seconds", "latency_seconds", *_OF_POSTGRES, "horizon_seconds"}
    ),
    Kind.NGINX: frozenset({"connections_percent", "latency_seconds", "horizon_seconds"}),
    Kind.HTTP: frozenset({"latency_seconds"}),
    Kind.CONTAINER: frozenset({"memory_percent", "cpu_percent", "throttled_percent", "restarts_per_hour", "horizon_seconds"}),
    Kind.COMPUTE_ENGINE: frozenset({"memory_percent", "cpu_percent", "disk_percent", "horizon_seconds"}),
    Kind.CLOUD_SQL: frozenset(
        {"connections_percent", "cpu_percent", "memory_percent", "disk_percent", "query_seconds", "latency_seconds", "horizon_seconds"}
    ),
    Kind.MEMORYSTORE: frozenset({"memory_percent", "clients_percent", "latency_seconds", "horizon_seconds"}),
}
