"""What goes wrong in the shop, and the JSON answer that each becomes."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

Model = TypeVar("Model", bound=BaseModel)


class ShopError(Exception):
    """An error with an HTTP status; its text is shown to the client and holds no secret."""

    status = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class NotFound(ShopError):
    """404: nothing has this name."""

    status = 404


class Conflict(ShopError):
    """409: the request is well formed, but not possible as things stand."""

    status = 409


class Invalid(ShopError):
    """422: a parameter is missing or out of its bounds."""

    status = 422


class Unavailable(ShopError):
    """503: a dependency does not answer, or refuses."""

    status = 503

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(message, dependency=dependency)
        self.dependency = dependency


def first_line(error: BaseException) -> str:
    """The first line of an error's text: enough to tell the cause, short enough for a log line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def log_unavailable(dependency: str, message: str) -> None:
    """Log that a dependency fails; the log's rate limit keeps a long outage short."""
    logging.getLogger(f"shop.{dependency}").error("%s unavailable: %s", dependency, message)


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Turn a ShopError into `{"error": {"message": ..., ...}}` with its status."""
    if not isinstance(error, ShopError):
        raise error
    if isinstance(error, Unavailable):
        log_unavailable(error.dependency, error.message)
    return JSONResponse({"error": {"message": error.message, **error.details}}, status_code=error.status)


async def parse_body(request: Request, model: type[Model]) -> Model:
    """Read the JSON body as `model`; an empty body counts as `{}`.

    Raises Invalid, which names every field that is wrong and why.
    """
    try:
        return model.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in problem["loc"]) or "body", "message": problem["msg"]}
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        text = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems)
        raise Invalid(text, problems=problems) from None
