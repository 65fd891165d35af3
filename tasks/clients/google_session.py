"""How the discovery client sends: over one session of `requests`, which sends each request once and may be used by several threads.

httplib2, its own means, repeats by itself what gets no status line in reply: a restart whose answer was lost would be done twice.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.auth.credentials import Credentials


def open_session(credentials: "Credentials") -> Any:
    """A session that shows the credentials' token, and renews it."""
    from google.auth.transport.requests import AuthorizedSession

    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class SessionHttp:
    """What the discovery client takes for httplib2."""

    session: Any
    timeout_seconds: float

    def request(self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_options: Any) -> tuple[Any, bytes]:
        """The reply, with its headers as httplib2 has them."""
        import httplib2

        reply = self.session.request(method, uri, data=body, headers=headers, timeout=self.timeout_seconds)
        return httplib2.Response({**reply.headers, "status": str(reply.status_code)}), reply.content

    def close(self) -> None:
        """The session is closed by whoever opened it."""
