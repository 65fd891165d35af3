"""The supervisor's control API: JSON over HTTP, on a unix socket that only the lab's owner can open."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from compose.supervised import ServiceFailed, SupervisedService, WrongState

MAX_LINES = 10_000


def control_app(services: Mapping[str, SupervisedService]) -> Starlette:
    """Routes for those services.

    `GET /services` and `GET /services/{name}` give the state; `POST /services/{name}/start|stop|restart` answer when that is done,
    `POST /services/{name}/signal?signal=SIGHUP` at once; `GET /services/{name}/log?lines=N` gives `{"lines": [...]}`. Errors are
    `{"error": ...}`: 400 for a bad value, 404 for an unknown service, 409 in the wrong state, 500 when a start or stop failed.
    """

    def find(request: Request) -> SupervisedService:
        name = request.path_params["name"]
        if name not in services:
            raise HTTPException(404, f"no service {name!r}; known: {', '.join(services)}")
        return services[name]

    async def show_all(_request: Request) -> JSONResponse:
        return JSONResponse([service.status() for service in services.values()])

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(find(request).status())

    async def log(request: Request) -> JSONResponse:
        service = find(request)
        value = request.query_params.get("lines", "100")
        if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= MAX_LINES:
            raise HTTPException(400, f"lines: give a whole number from 1 to {MAX_LINES}, not {value[:20]!r}")
        return JSONResponse({"lines": await asyncio.to_thread(service.log, int(value))})

    async def send(request: Request) -> JSONResponse:
        service = find(request)
        value = request.query_params.get("signal", "")
        if value not in signal.Signals.__members__:
            raise HTTPException(400, f"signal: give a name such as SIGHUP, not {value[:20]!r}")
        service.signal(signal.Signals[value])
        return JSONResponse(service.status())

    def changing(change: Callable[[SupervisedService], Awaitable[None]]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def endpoint(request: Request) -> JSONResponse:
            service = find(request)
            await change(service)
            return JSONResponse(service.status())

        return endpoint

    return Starlette(
        routes=[
            Route("/services", show_all),
            Route("/services/{name}", show),
            Route("/services/{name}/log", log),
            Route("/services/{name}/signal", send, methods=["POST"]),
            Route("/services/{name}/start", changing(SupervisedService.start), methods=["POST"]),
            Route("/services/{name}/stop", changing(SupervisedService.stop), methods=["POST"]),
            Route("/services/{name}/restart", changing(SupervisedService.restart), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refuse, WrongState: _conflict, ServiceFailed: _fail},
    )


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    return JSONResponse({"error": detail}, status)


async def _conflict(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 409)


async def _fail(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 500)
