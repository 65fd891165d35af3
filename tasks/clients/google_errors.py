"""What a failed call to Google Cloud amounts to, whichever of its libraries raised it."""

import email.utils
import functools
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tasks.clients.causes import is_caused_by
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

REASON_LENGTH = 300
PERMISSION = re.compile(r"\b([a-z]+\.[a-zA-Z]+\.[a-zA-Z]+)\b")
RATE = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "concurrentLimitExceeded"}
QUOTA = {"quotaExceeded", "QUOTA_EXCEEDED", "dailyLimitExceeded", "limitExceeded"}
NOT_ENABLED = {"accessNotConfigured", "SERVICE_DISABLED"}
WRONG_STATE = {"resourceNotReady", "resourceInUseByAnotherResource", "operationInProgress", "FAILED_PRECONDITION", "failedPrecondition"}
SERVER_FAULTS = {500, 502, 503, 504}


class Stage(StrEnum):
    """How far a call came."""

    CREDENTIALS = "credentials"
    """No token was issued, and asking again will not help."""
    UNSENT = "unsent"
    REFUSED = "refused"
    """Google answered, with an error."""
    LOST = "lost"
    """It was sent, or may have been, and no answer came."""


@dataclass(frozen=True)
class Who:
    """Whose call it was: named in what a person is told."""

    project: str = ""
    identity: str = ""

    @property
    def member(self) -> str:
        """As IAM writes it; a placeholder where the credentials do not tell the email."""
        if "@" not in self.identity:
            return "MEMBER"
        return f"{'serviceAccount' if self.identity.endswith('.gserviceaccount.com') else 'user'}:{self.identity}"


@dataclass(frozen=True)
class Fault:
    """One failed call."""

    stage: Stage
    message: str
    status: int | None = None
    reason: str = ""
    """Google's own short name for it."""
    retry_after_seconds: float | None = None

    @property
    def is_of_rate(self) -> bool:
        """Whether it was turned away only for coming too fast, with nothing done."""
        if self.stage is not Stage.REFUSED or self.reason in QUOTA:
            return False
        return self.status == http.client.TOO_MANY_REQUESTS or self.reason in RATE

    @property
    def is_of_server(self) -> bool:
        """Whether the server itself failed: what it had done by then is not known."""
        return self.stage is Stage.REFUSED and self.status in SERVER_FAULTS


@functools.cache
def known_errors() -> tuple[type[Exception], ...]:
    """What the libraries raise where a call fails. Imported here, for nobody without a project waits for them."""
    import google.api_core.exceptions
    import google.auth.exceptions
    import googleapiclient.errors
    import requests

    return (
        google.api_core.exceptions.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
        googleapiclient.errors.Error,
        requests.exceptions.RequestException,
        http.client.HTTPException,
        OSError,
    )


def fault_of(error: Exception) -> Fault:
    """The fault that one of `known_errors` stands for."""
    import google.api_core.exceptions
    import google.auth.exceptions
    import googleapiclient.errors

    if isinstance(error, google.api_core.exceptions.RetryError) and isinstance(error.cause, Exception):
        return fault_of(error.cause)
    if isinstance(error, google.api_core.exceptions.GoogleAPICallError):
        return _of_call(error)
    if isinstance(error, googleapiclient.errors.HttpError):
        status, headers = int(error.resp.status), {name.lower(): value for name, value in error.resp.items()}
        return _refused(status, _json(error.content), headers)
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        is_passing = isinstance(error, google.auth.exceptions.TransportError) or error.retryable
        return Fault(Stage.UNSENT if is_passing else Stage.CREDENTIALS, _of_credentials(error)[:REASON_LENGTH])
    stage = Stage.UNSENT if _was_never_sent(error) else Stage.LOST
    return Fault(stage, f"{type(error).__name__}: {str(error)[:REASON_LENGTH]}")


def _of_credentials(error: Exception) -> str:
    """Where an identity may not act as another, which permission it lacks stands in a body beside the message."""
    message, *others = error.args or (str(error),)
    body = _json(others[0]) if others and isinstance(others[0], str) else None
    told = body.get("error") if isinstance(body, dict) else None
    return f"{message}: {told.get('message', '')}" if isinstance(told, dict) else str(message)


def translated(fault: Fault, what: str, who: Who, *, changes: bool, may_be_sent: bool) -> EvenkeelError:
    """The project's own error. `changes`: the call changes something; `may_be_sent`: an earlier try of it was lost."""
    if changes and (may_be_sent or fault.stage is Stage.LOST or fault.is_of_server):
        return OutcomeUnknown(f"{what}: the reply was lost: {_said(fault)}")
    if fault.stage is Stage.CREDENTIALS or fault.status == http.client.UNAUTHORIZED:
        remedy = "give the section `gcp` a valid service_account and register the inventory again, or renew the machine's own credentials"
        return ToolFailed(f"{what}: Google refuses the credentials of {who.identity or 'this identity'}: {_said(fault)}; {remedy}")
    if fault.stage is not Stage.REFUSED or fault.is_of_server:
        return Unreachable(f"{what}: no answer, nothing was changed: {_said(fault)}")
    if fault.is_of_rate or fault.reason in QUOTA:
        return ToolFailed(f"{what}: refused for want of quota: {_said(fault)}; raise the quota of project {who.project}, or wait")
    if fault.status == http.client.FORBIDDEN:
        return ToolFailed(_forbidden(fault, what, who))
    if fault.status in {http.client.CONFLICT, http.client.PRECONDITION_FAILED} or fault.reason in WRONG_STATE:
        return NotApplicable(f"{what}: it is in the wrong state for this: {_said(fault)}")
    if fault.status == http.client.NOT_FOUND:
        return ToolFailed(f"{what}: there is no such thing in project {who.project}: {_said(fault)}; correct its address or location")
    return ToolFailed(f"{what}: Google refused: {_said(fault)}")


def _said(fault: Fault) -> str:
    return f"{fault.status} {fault.message}" if fault.status else fault.message


def _forbidden(fault: Fault, what: str, who: Who) -> str:
    if fault.reason in NOT_ENABLED:
        return f"{what}: an API is not enabled in project {who.project}: {_said(fault)}; enable it with `gcloud services enable`"
    permission = PERMISSION.search(fault.message)
    lacking = f"the permission {permission[1]}" if permission is not None else "a permission"
    remedy = f"grant a role that has it: gcloud projects add-iam-policy-binding {who.project} --member={who.member} --role=ROLE"
    subject = who.identity or "the identity"
    return f"{what}: {subject} lacks {lacking}: {_said(fault)}; {remedy}; `python -m flows.gcp_check` lists what is needed"


def _of_call(error: Any) -> Fault:
    response, status = error.response, None if error.code is None else int(error.code)
    if hasattr(response, "headers"):
        return _refused(status, _json(response.content), response.headers)
    # gRPC, which has no headers; only what reads goes over it.
    delays = [detail.retry_delay.ToTimedelta().total_seconds() for detail in error.details if hasattr(detail, "retry_delay")]
    grpc_name = "" if error.grpc_status_code is None else error.grpc_status_code.name
    reason = error.reason or grpc_name
    return Fault(Stage.REFUSED, str(error.message)[:REASON_LENGTH], status, reason, delays[0] if delays else None)


def _refused(status: int | None, body: Any, headers: Mapping[str, str]) -> Fault:
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(told, dict):
        told = {"message": str(told or body or "no reason given")}
    details = [one for one in told.get("details") or () if isinstance(one, dict)]
    listed = [one for one in told.get("errors") or () if isinstance(one, dict)]
    permission = next((str(one["metadata"]["permission"]) for one in details if "permission" in (one.get("metadata") or {})), "")
    reasons = [str(one["reason"]) for one in (*details, *listed) if one.get("reason")]
    message = str(told.get("message", ""))[:REASON_LENGTH]
    if permission and permission not in message:
        message = f"{message} ({permission})"
    reason = next((one for one in reasons if one in RATE | QUOTA | NOT_ENABLED | WRONG_STATE), "")
    return Fault(Stage.REFUSED, message, status, reason or _status_name(told, reasons), _seconds(headers.get("retry-after")))


def _status_name(told: dict[str, Any], reasons: list[str]) -> str:
    name = str(told.get("status") or "")
    return name if name in WRONG_STATE else (reasons[0] if reasons else name)


def _json(content: Any) -> Any:
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    try:
        return json.loads(text)
    except ValueError:
        return re.sub(r"<[^>]*>|\s+", " ", text).strip()


def _seconds(retry_after: str | None) -> float | None:
    """Of a header Retry-After, which holds seconds or a date."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    except ValueError:
        return None


def _was_never_sent(error: Exception) -> bool:
    import requests
    import urllib3.exceptions

    never = (
        ConnectionRefusedError,
        socket.gaierror,
        ssl.SSLCertVerificationError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        requests.exceptions.ConnectTimeout,
    )
    # A ProxyError alone says nothing: urllib3 also makes one of an answer that was lost behind the proxy.
    return any(is_caused_by(error, kind) for kind in never)
