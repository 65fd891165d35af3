"""One measurement for all who ask at the same time."""

import asyncio

import pytest

from tasks.clients.sharing import Shared


async def test_any_number_of_askers_cost_two_calls_and_none_gets_an_old_value() -> None:
    calls: list[float] = []
    shared = Shared[float]()
    loop = asyncio.get_running_loop()

    async def measure() -> float:
        calls.append(loop.time())
        await asyncio.sleep(0.02)
        return calls[-1]

    async def ask() -> tuple[float, float]:
        asked_at = loop.time()
        return asked_at, await shared.get(measure)

    answers = await asyncio.gather(*(ask() for _ in range(50)))
    assert len(calls) == 2
    assert all(measured_at >= asked_at for asked_at, measured_at in answers)
    await shared.get(measure)
    assert len(calls) == 3


async def test_a_failed_call_is_nobody_elses() -> None:
    shared = Shared[int]()

    async def fail() -> int:
        raise ValueError("broken")

    async def answer() -> int:
        return 7

    results = await asyncio.gather(shared.get(fail), shared.get(answer), return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert results[1] == 7
    with pytest.raises(ValueError, match="broken"):
        await shared.get(fail)
