"""Faults of a simulated project of Google Cloud itself, which are set through its admin API.

A lab's virtual machine has the login `admin` for it: as the user the API's address, as the password its token.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from blocks.schema import Kind
from tasks.scenarios.stage import InjectionFailedError, Stage

CALL_SECONDS = 30.0
RESTORE_SECONDS = 120.0


@asynccontextmanager
async def simulator(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The admin API; `await ask(client, ...)` calls it."""
    async with _admin(*stage.login("admin", stage.resource_of(Kind.COMPUTE_ENGINE).name), CALL_SECONDS) as client:
        yield client


async def restore_project(url: str, token: str) -> None:
    """Have every instance as the simulated world describes it; what should run is started."""
    async with _admin(url, token, RESTORE_SECONDS) as client:
        await ask(client, "POST", "/reset")


def _admin(url: str, token: str, seconds: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=seconds, trust_env=False)


async def ask(client: httpx.AsyncClient, verb: str, path: str, body: Any = None) -> Any:
    """One call of the admin API; InjectionFailedError says why it was refused."""
    try:
        answer = await client.request(verb, path, json=body)
    except httpx.TransportError as error:
        raise InjectionFailedError(f"{verb} {path}: the simulator does not answer ({type(error).__name__})") from error
    if answer.is_error:
        raise InjectionFailedError(f"{verb} {path}: {answer.status_code} {answer.text[:200]}")
    return answer.json()


@asynccontextmanager
async def control_plane_fault(stage: Stage, method: str, **fields: Any) -> AsyncIterator[None]:
    """The calls of an API method (such as compute.instances.start) go wrong as the fields say, for as long as the block lasts."""
    async with simulator(stage) as client:
        number = (await ask(client, "POST", "/faults", {"method": method, **fields}))["id"]
        try:
            yield
        finally:
            await ask(client, "DELETE", f"/faults/{number}")
