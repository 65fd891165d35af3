"""Google's error answers: older APIs (Compute Engine, Cloud SQL) name a reason, newer ones a status and details."""

from collections.abc import Mapping
from typing import Any

RPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
REASON = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    501: "notImplemented",
    503: "backendError",
    504: "gatewayTimeout",
}
OLDER = {"compute", "sqladmin"}
LIMITED = {"rateLimitExceeded", "quotaExceeded", "userRateLimitExceeded"}


class Refused(Exception):
    """A request that is answered with an error. `reason` and `rpc_status` follow from the HTTP status where they are not given."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str | None = None,
        rpc_status: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or REASON.get(status, "backendError")
        self.rpc_status = rpc_status or RPC_STATUS.get(status, "UNKNOWN")
        self.headers = dict(headers or {})
        self.details = details

    def body(self, api: str) -> dict[str, Any]:
        """The answer's body, in the API's manner."""
        error: dict[str, Any] = {"code": self.status, "message": self.message}
        if api in OLDER:
            domain = "usageLimits" if self.reason in LIMITED else "global"
            error["errors"] = [{"message": self.message, "domain": domain, "reason": self.reason}]
        if api not in OLDER or self.status == 401:
            error["status"] = self.rpc_status
        if self.details is not None:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason, "domain": "googleapis.com"}
            error["details"] = [{**info, "metadata": dict(self.details)}]
        return {"error": error}


def unauthenticated(why: str) -> Refused:
    """401: no token, or none that is valid."""
    return Refused(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication "
        f"credential. ({why})",
        headers={"www-authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'},
    )


def denied(api: str, permission: str, resource: str) -> Refused:
    """403: the identity lacks a permission. Cloud SQL does not say which."""
    if api == "compute":
        return Refused(403, f"Required '{permission}' permission for '{resource}'")
    if api == "sqladmin":
        return Refused(403, "The client is not authorized to make this request.", reason="notAuthorized")
    return Refused(
        403,
        f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
        reason="IAM_PERMISSION_DENIED",
        details={"permission": permission, "resource": resource},
    )


def not_found(api: str, resource: str) -> Refused:
    """404: no such instance or operation."""
    if api == "sqladmin":
        return Refused(404, "The Cloud SQL instance does not exist.", reason="instanceDoesNotExist")
    if api == "compute":
        return Refused(404, f"The resource '{resource}' was not found")
    return Refused(404, f"Resource '{resource}' was not found")
