"""The admin API as Python calls it: knobs of a running simulator, and what it wrote down."""

from typing import Any

import httpx

from compose.description import LabError
from compose.google_cloud.description import CloudDescription
from compose.google_cloud.faults import Fault
from compose.google_cloud.journal import Mutation, Violation
from compose.google_cloud.world import Delays

SECONDS = 60.0


class Admin:
    """Blocking calls; a reset may have to start servers again. LabError says why one was refused."""

    def __init__(self, description: CloudDescription) -> None:
        headers = {"authorization": f"Bearer {description.admin_token}"}
        self._client = httpx.Client(base_url=description.admin_url, headers=headers, timeout=SECONDS, trust_env=False)

    def close(self) -> None:
        """Close its connection."""
        self._client.close()

    def reset(self) -> None:
        """The world as it is described, without faults, and nothing written down."""
        self._ask("POST", "/reset")

    def add(self, fault: Fault) -> int:
        """Set a fault; its number."""
        return int(self._ask("POST", "/faults", fault.model_dump(exclude_defaults=True))["id"])

    def remove(self, fault: int | None = None) -> None:
        """Take a fault away, or all."""
        self._ask("DELETE", "/faults" if fault is None else f"/faults/{fault}")

    def set_delays(self, delays: Delays) -> None:
        """How long operations take that begin from now on, and how old points are."""
        self._ask("PUT", "/delays", delays.model_dump())

    def revoke_tokens(self) -> None:
        """Every token in use is invalid."""
        self._ask("POST", "/tokens/revoke")

    def permit(self, identity: str, permissions: tuple[str, ...]) -> None:
        """What an identity may do until the next reset."""
        self._ask("PUT", f"/identities/{identity}", {"permissions": permissions})

    def change_record(self, instance: str, **fields: object) -> None:
        """`status`, `state` or `labels` of an instance's record; its plane stays as it is."""
        self._ask("PATCH", f"/instances/{instance}", fields)

    def touch_plane(self, instance: str, action: str) -> None:
        """`kill`, `freeze` or `thaw` what is behind an instance."""
        self._ask("POST", f"/planes/{instance}/{action}")

    def violations(self) -> list[Violation]:
        """What was wrong in an exchange since the last reset."""
        return [Violation(**one) for one in self._ask("GET", "/journal")["violations"]]

    def unforgiven(self) -> int:
        """How many violations there were since the start, resets or not, but for those that were forgiven."""
        return int(self._ask("GET", "/journal")["unforgiven"])

    def forgive(self) -> None:
        """The violations so far were meant."""
        self._ask("DELETE", "/violations")

    def mutations(self, method: str | None = None) -> list[Mutation]:
        """What came to change something since the last reset, in order."""
        every = [Mutation(**one) for one in self._ask("GET", "/journal")["mutations"]]
        return [one for one in every if method in {None, one.method}]

    def calls(self) -> dict[str, int]:
        """Method id -> how often it was called since the last reset."""
        return dict(self._ask("GET", "/journal")["calls"])

    def _ask(self, verb: str, path: str, body: object = None) -> Any:
        answer = self._client.request(verb, path, json=body)
        if answer.is_error:
            raise LabError(f"simulator: {verb} {path}: {answer.json().get('error', answer.text)}")
        return answer.json()
