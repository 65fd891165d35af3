"""How often large tables are read whole, told from counts that only ever grow."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# The server's sessions hand in their counts once a second.
WINDOW_SECONDS = 3.0
KEPT = 200


@dataclass
class ScanHistory:
    """The counts of the last readings. A rate is told over three seconds at least, from the second such reading on."""

    _seen: deque[tuple[float, dict[int, int]]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def busiest(self, tables: Sequence[dict[str, Any]], now: float) -> dict[str, Any] | None:
        """The table that was read whole most often since then, with `scans_per_second`; None where nothing can be told yet.

        `tables` has `oid` and `scans`; `now` is in seconds of any clock that only goes forward.
        """
        base = None
        while self._seen and now - self._seen[0][0] >= WINDOW_SECONDS:
            base = self._seen.popleft()
        if base is not None:
            self._seen.appendleft(base)
        self._seen.append((now, {table["oid"]: table["scans"] for table in tables}))
        if base is None:
            return None
        at, counts = base
        rated = [
            {**table, "scans_per_second": round(max(table["scans"] - counts[table["oid"]], 0) / (now - at), 2)}
            for table in tables
            if table["oid"] in counts
        ]
        return max(rated, key=lambda table: float(table["scans_per_second"]), default=None)
