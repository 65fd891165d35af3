"""Many servers measured at once: those that are well are found well, however many they are and whatever hangs beside them."""

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from blocks.schema import Inventory, Kind, Resource
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.connecting import Live
from tasks.core.models import Health
from tasks.probing import probe_all
from tasks.records.repository import Records

WELL, HANGING = 1000, 20


async def test_a_thousand_servers_do_not_make_each_other_look_silent(fresh_web: LabDescription, tmp_path: Path) -> None:
    url = fresh_web.web.url
    hanging = [Resource(name=f"hold-{number}", kind=Kind.HTTP, address=f"{url}hold?{number}") for number in range(HANGING)]
    pages = [Resource(name=f"page-{number}", kind=Kind.HTTP, address=f"{url}?{number}") for number in range(WELL)]
    inventory = Inventory(name="many", resources=(*hanging, *pages))
    async with await Records.open(f"sqlite:///{tmp_path}/records.db") as records, AsyncExitStack() as stack:
        live = Live(inventory, records, load_catalog(), {}, gemini=None, _stack=stack)
        seen = await probe_all(live, inventory.resources)
    assert [one.resource for one in seen] == [one.name for one in inventory.resources]
    assert Health.HEALTHY not in {one.health for one in seen[:HANGING]}
    assert Counter(one.health for one in seen[HANGING:]) == {Health.HEALTHY: WELL}
