"""Every fault of Nginx on the whole lab, without flows: injected, shown by the probe, planned by rule, authorised, healed, taken back."""

from collections.abc import AsyncIterator

import pytest

from compose.description import LabDescription
from tasks.core.declare import Ending
from tasks.core.models import Health, Step
from tasks.core.plans import parse_args
from tests.tasks.theatre import CATALOG, Theatre, theatre_of

REMEDY = {
    "nginx_connection_overload": "nginx_scale_connections",
    "nginx_small_limit": "nginx_scale_connections",
    "nginx_invalid_configuration": "nginx_revert_config",
    "nginx_wrong_upstream": "nginx_set_upstream",
    "nginx_stale_upstream": "nginx_reload",
    "nginx_expired_certificate": "nginx_install_certificate",
    "nginx_short_timeout": "nginx_revert_config",
    "nginx_unreadable_files": "nginx_restore_mode",
}
UNHEALED = {"nginx_invalid_configuration", "nginx_expired_certificate", "nginx_unreadable_files"}
"""Of which every run of the tests looks at what is left when nobody heals."""
QUIET = ("nginx_short_peak", "nginx_traffic_swings")


@pytest.fixture
async def theatre(lab: LabDescription) -> AsyncIterator[Theatre]:
    """The session's lab; it is left as it was found, which is asserted."""
    async with theatre_of(lab, "shop-web") as found:
        await found.wait_for(frozenset())
        files = [lab.web.config_path, lab.web.tls / "shop.crt", lab.web.tls / "shop.key"]
        before = [file.read_bytes() for file in files], (lab.web.web_root / "static").stat().st_mode
        yield found
        assert (await found.wait_for(frozenset())).health is Health.HEALTHY
        assert ([file.read_bytes() for file in files], (lab.web.web_root / "static").stat().st_mode) == before


def test_every_fault_has_a_remedy_here() -> None:
    names = {one.name for one in CATALOG.scenarios.values() if one.function.__module__.startswith("tasks.scenarios.nginx")}
    assert names == {*REMEDY, *QUIET}


@pytest.mark.parametrize("name", REMEDY)
async def test_a_fault_shows_and_is_healed_and_taken_back(theatre: Theatre, name: str) -> None:
    declared = CATALOG.scenarios[name]
    assert declared.expects is Ending.HEALED
    try:
        assert await theatre.perform(declared) == [REMEDY[name]]
    finally:
        for call in theatre.resource.baseline:
            step = Step(tool=call.tool, target=theatre.resource.name, args=call.args, why="as before")
            await CATALOG.tools[step.tool].function(theatre.client, parse_args(CATALOG.tools[step.tool], step))


@pytest.mark.parametrize("name", [name if name in UNHEALED else pytest.param(name, marks=pytest.mark.slow) for name in REMEDY])
async def test_a_fault_that_nobody_heals_is_taken_back(theatre: Theatre, name: str) -> None:
    declared = CATALOG.scenarios[name]
    generator = declared.function(theatre.stage)
    try:
        await anext(generator)
        await theatre.wait_for(declared.symptoms)
    finally:
        await generator.aclose()


@pytest.mark.parametrize("name", QUIET)
async def test_where_nothing_is_wrong_nothing_shows_for_long(theatre: Theatre, name: str) -> None:
    generator = CATALOG.scenarios[name].function(theatre.stage)
    try:
        await anext(generator)
        for _ in range(5):
            assert (await theatre.observe()).health is Health.HEALTHY
    finally:
        await generator.aclose()
