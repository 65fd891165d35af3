"""What the gate tries of the catalogue as whole flows: every service and every way to end. `make test` tries each fault without flows."""

from typing import Literal

from compose.stack import LAB_KINDS, LabKind

Place = LabKind | Literal["cloud"]
PLACES: tuple[Place, ...] = (*LAB_KINDS, "cloud")
"""Where faults are tried: what runs the local lab, or a simulated project of Google Cloud."""

IN_THE_GATE: dict[Place, tuple[str, ...]] = {
    "processes": (
        "nginx_invalid_configuration",
        "nginx_wrong_upstream",
        "postgres_leak_and_runaway",
        "postgres_monitor_locked_out",
        "postgres_slot_left",
        "redis_full_and_crowded",
        "redis_password_changed",
        "redis_pressure_with_praise_in_history",
        "shop_stopped_again",
    ),
    "containers": (
        "container_cut_off",
        "container_frozen",
        "container_out_of_memory",
        "container_in_maintenance",
        "nginx_connection_overload",
        "postgres_connection_overload",
        "redis_down_behind_the_shop",
    ),
    "cloud": (
        "gcp_compute_terminated",
        "gcp_redis_memory_pressure",
        "gcp_sql_connection_overload",
    ),
}
