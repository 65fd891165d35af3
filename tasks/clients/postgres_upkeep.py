"""What goes wrong slowly in a PostgreSQL database: forgotten slots, dead rows, scans for want of an index, damaged pages, lost rights."""

from psycopg.sql import SQL, Literal

MIN_DEAD_ROWS = 10_000
MIN_SCANNED_ROWS = 50_000
"""A table below that is read whole in a few milliseconds, which is often right."""

RETAINED_MIB = SQL("""
    (pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn) / 1048576)::int
""")
"""WAL that a slot of pg_replication_slots keeps."""

AUTOVACUUM_IS_OFF = SQL("coalesce(array_to_string(reloptions, ',') ~ 'autovacuum_enabled=(off|false|no|0)', false)")
"""Whether an option of a table of pg_class turns autovacuum off for it."""

_OURS = SQL("nspname !~ '^pg_' AND nspname <> 'information_schema'")

# Where autovacuum is on, it comes by itself: only tables that it passes by are counted, and their options are asked first.
UPKEEP = SQL("""
    (SELECT to_jsonb(slot) FROM (
        SELECT slot_name AS name, slot_type AS type, {retained} AS retained_mib
        FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY restart_lsn LIMIT 1
    ) AS slot) AS idle_slot,
    (SELECT to_jsonb(bloated) FROM (
        SELECT "schema", name, dead_rows, live_rows, autovacuum,
               round(100.0 * dead_rows / (dead_rows + live_rows), 1)::float8 AS dead_percent
        FROM (
            SELECT nspname AS "schema", relname AS name, pg_stat_get_dead_tuples(pg_class.oid) AS dead_rows,
                   pg_stat_get_live_tuples(pg_class.oid) AS live_rows,
                   CASE WHEN current_setting('autovacuum')::bool THEN 'off for the table' ELSE 'off for the server' END AS autovacuum
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind IN ('r', 'm') AND {ours}
              AND (NOT current_setting('autovacuum')::bool OR {is_off})
        ) AS tables WHERE dead_rows >= {min_dead} ORDER BY dead_rows DESC LIMIT 1
    ) AS bloated) AS bloated_table,
    (SELECT coalesce(jsonb_agg(to_jsonb(scanned)), '[]') FROM (
        SELECT pg_class.oid::bigint AS oid, nspname AS "schema", relname AS name, pg_stat_get_numscans(pg_class.oid) AS scans,
               pg_stat_get_live_tuples(pg_class.oid) AS rows
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind = 'r' AND {ours} AND pg_stat_get_live_tuples(pg_class.oid) >= {min_scanned}
        ORDER BY pg_stat_get_tuples_returned(pg_class.oid) DESC LIMIT 3
    ) AS scanned) AS scanned_tables,
    (SELECT pg_stat_get_db_checksum_failures(oid) FROM pg_database WHERE datname = current_database()) AS damaged_pages
""").format(
    ours=_OURS, retained=RETAINED_MIB, is_off=AUTOVACUUM_IS_OFF, min_dead=Literal(MIN_DEAD_ROWS), min_scanned=Literal(MIN_SCANNED_ROWS)
)
"""Columns of the probe's one statement; see `tasks.probes.postgres`."""

# An owner has every right to what is its own, until somebody takes it away: what is missing there was lost, and nothing else can be known.
APPLICATION = SQL("""
    SELECT current_setting('transaction_read_only')::bool AS read_only, pg_is_in_recovery() AS in_recovery,
           CASE WHEN current_setting('transaction_read_only')::bool
                THEN (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only') END AS read_only_source,
           (SELECT coalesce(jsonb_agg(to_jsonb(lost)), '[]') FROM (
               SELECT 'USAGE' AS privilege, 'schema' AS kind, nspname AS "schema", NULL AS name FROM pg_namespace
               WHERE {ours} AND pg_has_role(nspowner, 'USAGE') AND NOT has_schema_privilege(oid, 'USAGE')
               UNION ALL
               SELECT CASE relkind WHEN 'S' THEN 'USAGE' ELSE 'SELECT' END, CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END,
                      nspname, relname
               FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
               WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {ours} AND pg_has_role(relowner, 'USAGE')
                 AND NOT CASE relkind WHEN 'S' THEN has_sequence_privilege(pg_class.oid, 'USAGE')
                                      ELSE has_table_privilege(pg_class.oid, 'SELECT') END
               ORDER BY 2, 3, 4 LIMIT 5
           ) AS lost) AS privileges_missing
""").format(ours=_OURS)
"""What the application's own session finds: whether it may write, and the rights to its own objects that it has lost."""
