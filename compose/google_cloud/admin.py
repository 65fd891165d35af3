"""The admin API of a simulator: fault knobs, what was written down, and what changes behind the control plane's back.

JSON over HTTP on a loopback port; every request carries `Authorization: Bearer TOKEN`. Errors are `{"error": ...}`.

    GET    /journal                    {"violations": [...], "mutations": [...], "calls": {...}, "unforgiven": n}
    DELETE /violations                 they were meant; a reset forgets them and still counts them as unforgiven
    POST   /reset                      the world as described; faults, journal and operations forgotten
    POST   /faults   {fault}           {"id": n}; fields as in compose.google_cloud.faults.Fault
    GET    /faults                     those that are set
    DELETE /faults, /faults/{id}       take all away, or one
    PUT    /delays   {delays}          fields as in compose.google_cloud.world.Delays
    POST   /tokens/revoke              every token in use is invalid from here on
    PUT    /identities/{name}  {"permissions": [...]}
    PATCH  /instances/{name}   {"status"|"state"|"labels": ...}   the record alone
    POST   /planes/{name}/kill|freeze|thaw
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from compose.description import Model
from compose.google_cloud.faults import Fault, Faults
from compose.google_cloud.journal import Journal
from compose.google_cloud.planes import MachinePlane, MemorystorePlane, SqlPlane
from compose.google_cloud.project import Machine, Project, RedisInstance, SqlInstance
from compose.google_cloud.world import Delays

Endpoint = tuple[str, str, Callable[[Request], Awaitable[Any]]]
"""HTTP method, path, and what answers."""


class Permissions(Model):
    """What an identity may do from here on."""

    permissions: tuple[str, ...]


class RecordChange(Model):
    """What a record says from here on; its plane stays as it is."""

    status: str | None = Field(None, description="Of a machine.")
    state: Literal["RUNNABLE", "SUSPENDED", "MAINTENANCE", "FAILED", "READY", "REPAIRING", "UPDATING"] | None = None
    labels: dict[str, str] | None = None


class TokenNeeded:
    """Lets only requests with the admin token through."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 without the token."""
        given = Request(scope).headers.get("authorization", "") if scope["type"] == "http" else ""
        if not secrets.compare_digest(given.encode(), self._expected.encode()):
            await JSONResponse({"error": "give the admin token: Authorization: Bearer TOKEN"}, 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def admin_app(project: Project, journal: Journal, faults: Faults, token: str) -> Starlette:
    """The routes of the module's description."""

    async def show_journal(_request: Request) -> Any:
        return journal.shown()

    async def forgive(_request: Request) -> Any:
        journal.forgive()
        return {}

    async def reset(_request: Request) -> Any:
        faults.clear()
        project.access.restore()
        await project.restore()
        journal.clear()
        return {}

    async def set_delays(request: Request) -> Any:
        project.operations.delays = Delays.model_validate_json(await request.body())
        return {}

    async def revoke(_request: Request) -> Any:
        project.access.revoke_all()
        return {}

    async def permit(request: Request) -> Any:
        permissions = Permissions.model_validate_json(await request.body()).permissions
        project.access.named(request.path_params["name"]).permissions = set(permissions)
        return {}

    async def change_record(request: Request) -> Any:
        _change(_instance(project, request.path_params["name"]), RecordChange.model_validate_json(await request.body()))
        return {}

    async def touch_plane(request: Request) -> Any:
        instance, action = _instance(project, request.path_params["name"]), request.path_params["action"]
        async with instance.lock:
            await _touch(instance.plane, action)
        return {}

    endpoints: list[Endpoint] = [
        ("GET", "/journal", show_journal),
        ("DELETE", "/violations", forgive),
        ("POST", "/reset", reset),
        ("PUT", "/delays", set_delays),
        ("POST", "/tokens/revoke", revoke),
        ("PUT", "/identities/{name}", permit),
        ("PATCH", "/instances/{name}", change_record),
        ("POST", "/planes/{name}/{action}", touch_plane),
        *_of_faults(faults),
    ]
    return Starlette(
        routes=[Route(path, _answering(endpoint), methods=[verb]) for verb, path, endpoint in endpoints],
        middleware=[Middleware(TokenNeeded, token=token)],
        exception_handlers={HTTPException: _refuse},
    )


def _of_faults(faults: Faults) -> list[Endpoint]:
    async def add_fault(request: Request) -> Any:
        return {"id": faults.add(Fault.model_validate_json(await request.body()))}

    async def show_faults(_request: Request) -> Any:
        return faults.shown()

    async def clear_faults(_request: Request) -> Any:
        faults.clear()
        return {}

    async def remove_fault(request: Request) -> Any:
        faults.remove(request.path_params["number"])
        return {}

    return [
        ("POST", "/faults", add_fault),
        ("GET", "/faults", show_faults),
        ("DELETE", "/faults", clear_faults),
        ("DELETE", "/faults/{number:int}", remove_fault),
    ]


def _answering(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def answer(request: Request) -> JSONResponse:
        try:
            return JSONResponse(await endpoint(request))
        except ValidationError as error:
            raise HTTPException(400, str(error)) from error
        except (KeyError, StopIteration) as error:
            raise HTTPException(404, f"{request.url.path}: there is none such") from error

    return answer


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _instance(project: Project, name: str) -> Machine | SqlInstance | RedisInstance:
    for instances in (project.machines, project.databases, project.caches):
        if name in instances:
            instance: Machine | SqlInstance | RedisInstance = instances[name]
            return instance
    raise HTTPException(404, f"{name}: no such instance")


def _change(instance: Machine | SqlInstance | RedisInstance, change: RecordChange) -> None:
    if change.labels is not None:
        instance.labels = dict(change.labels)
    if isinstance(instance, Machine):
        instance.status = change.status or instance.status
    else:
        instance.state = change.state or instance.state


async def _touch(plane: MachinePlane | SqlPlane | MemorystorePlane | None, action: str) -> None:
    touches = {"kill", "freeze", "thaw"}
    touch = getattr(plane, action, None) if action in touches else None
    if touch is None:
        raise HTTPException(404, f"{action}: nothing that can be done to this plane")
    await touch()
