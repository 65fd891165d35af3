"""A simulated machine: what is seen and done in it over SSH, as by those who look after it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from compose.description import LabError
from compose.google_cloud.machine import Machine, check_machines
from compose.google_cloud.plane_address import free_network
from compose.google_cloud.planes import MachineMeasures

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMORY_MIB = 256
PATIENCE_SECONDS = 30.0
BURN = "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &"
TAKE = "setsid python3 -c 'import time; taken = b\"1\" * ({mib} << 20); time.sleep(600)' >/dev/null 2>&1 </dev/null &"


@dataclass
class Guest:
    """A machine, and a login on it."""

    machine: Machine

    async def connect(self) -> asyncssh.SSHClientConnection:
        machine = self.machine
        return await asyncssh.connect(
            machine.host,
            machine.port,
            username=machine.user,
            client_keys=[asyncssh.import_private_key(machine.login.password)],
            known_hosts=([asyncssh.import_public_key(machine.host_key)], [], []),
            config=None,
            agent_path=None,
        )

    async def run(self, command: str, given: str = "") -> str:
        """What a command prints on a connection of its own, also where it takes the machine down."""
        connection = await self.connect()
        try:
            return str((await connection.run(command, input=given)).stdout).strip()
        finally:
            connection.close()

    async def boot_id(self) -> str:
        return await self.run("cat /proc/sys/kernel/random/boot_id")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guest]:
    try:
        await check_machines()
    except LabError as refusal:
        pytest.skip(str(refusal))
    machine = Machine(
        tmp_path_factory.mktemp("planes") / "shop-vm", (next(free_network()), 2222), cpus=1, memory_mib=MEMORY_MIB, disk_mib=32
    )
    await machine.boot()
    yield Guest(machine)
    await machine.end()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"it did not come true within {PATIENCE_SECONDS:g} s"
        await asyncio.sleep(0.1)


async def measured(guest: Guest) -> MachineMeasures:
    found = await guest.machine.measure()
    assert found is not None
    return found


async def test_it_has_a_size_a_disk_and_a_user_of_its_own_and_no_way_to_the_hosts_files(guest: Guest, tmp_path: Path) -> None:
    assert await guest.run("hostname; id -un; nproc; pwd") == "shop-vm\nevenkeel\n1\n/home/evenkeel"
    assert await guest.run(
        "free -m | awk '/^Mem/ {print $2}'; grep -c '^cpu[0-9]' /proc/stat; df -m --output=size / | tail -1 | tr -d ' '"
    ) == (f"{MEMORY_MIB}\n1\n32")
    assert set((await guest.run("ps -eo comm=")).split()) <= {"python", "sshd", "sh", "ps"}
    assert "Read-only file system" in await guest.run("touch /usr/evil /etc/evil 2>&1")
    assert await guest.run(f"ls {tmp_path} 2>&1") != ""
    assert "No such file" in await guest.run(f"cat {__file__} 2>&1")
    assert await guest.run("sudo -n id -u; sync && echo synced") == "1000\nsynced"
    assert await guest.run("bash -s one two", given="echo $2; exit 0\n") == "two"


async def test_it_forwards_connections_to_its_network(guest: Guest) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with server, await guest.connect() as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
        assert await reader.readline() == b"hello\n"
        writer.close()


async def test_its_load_is_that_of_its_processes_and_a_reboot_ends_them(guest: Guest) -> None:
    before, boot_id = await measured(guest), await guest.boot_id()
    await guest.run("touch ~/kept /tmp/forgotten")
    taken = int(MEMORY_MIB * (92 - before["memory_percent"]) / 100)
    await guest.run(TAKE.format(mib=taken))
    await guest.run(BURN)

    async def loaded() -> bool:
        found = await measured(guest)
        return 89 < found["memory_percent"] < 100 and found["cpu"] > 0.95

    await until(loaded)
    assert int((await guest.run("free -m | awk '/^Mem/ {print $7}'")).strip()) < MEMORY_MIB / 8
    # Whoever takes more than there is goes.
    await guest.run(TAKE.format(mib=taken))

    async def killed() -> bool:
        return "Out of memory: Killed process" in guest.machine.log.read_text(encoding="utf-8")

    await until(killed)
    await guest.run("sudo reboot")

    async def rebooted() -> bool:
        try:
            return await guest.boot_id() != boot_id
        except (OSError, asyncssh.Error):
            return False

    await until(rebooted)
    assert await guest.run("ls ~") == "kept"
    assert "forgotten" not in await guest.run("ls /tmp")
    assert "sleep" not in await guest.run("ps -eo args=")
    assert (await measured(guest))["memory_percent"] < 60


async def test_it_freezes_and_a_reset_wakes_it(guest: Guest) -> None:
    boot_id = await guest.boot_id()
    await guest.machine.freeze()
    assert await guest.machine.measure() is None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await guest.boot_id()
    await guest.machine.thaw()
    assert await guest.boot_id() == boot_id
    await guest.machine.freeze()
    await guest.machine.reset()
    assert await guest.boot_id() != boot_id


async def test_it_is_off_after_a_shutdown_and_a_poweroff_and_keeps_its_disk(guest: Guest) -> None:
    await guest.run("echo 1 > ~/kept")
    await guest.machine.shutdown()
    assert not guest.machine.running
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await guest.connect()
    await guest.machine.boot()
    assert await guest.run("cat ~/kept") == "1"
    await guest.run("sudo poweroff")

    async def off() -> bool:
        return not guest.machine.running

    await until(off)
    await guest.machine.boot()
    assert guest.machine.running
