"""Directories, ports and logins of a lab, before anything runs."""

import socket
import stat
from pathlib import Path

import pytest

from compose.description import LabError, free_ports, is_free, load, save, write_private
from compose.new_lab import prepare

CONTROL = Path("/nowhere/control.sock")


def test_ports_are_free_and_all_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for port in ports:
        # Outgoing connections can't take them while a server is down.
        assert port < lowest or lowest < 12_000
        with socket.socket() as server:
            # As servers do: what a connection of another test has just left counts as free.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])


def test_a_lab_keeps_ports_and_logins(tmp_path: Path) -> None:
    first = prepare(tmp_path / "lab", ("cache",), CONTROL)
    second = prepare(tmp_path / "lab", None, CONTROL)
    assert (second.database, second.cache, second.web) == (first.database, first.cache, first.web)
    assert second.services == ("database", "cache", "web", "app", "traffic")
    assert load(tmp_path / "lab") == second


def test_two_labs_share_no_password(tmp_path: Path) -> None:
    labs = [prepare(tmp_path / name, None, CONTROL) for name in ("one", "two")]
    passwords = [login.password for lab in labs for login in (*lab.database.logins.values(), *lab.cache.logins.values())]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 20


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old", encoding="ascii")
    path.chmod(0o644)
    write_private(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text(encoding="ascii") == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        (("mail",), "no 'mail'; choose from database, cache, web, app, traffic"),
        (("cache", "app"), "app needs database; add it"),
        (("traffic",), "traffic needs web; add it"),
    ],
)
def test_bad_services_are_refused(tmp_path: Path, services: tuple[str, ...], words: str) -> None:
    with pytest.raises(LabError, match=words):
        prepare(tmp_path / "lab", services, CONTROL)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("name", ['qu"ote', "dol$lar", "line\nbreak", "semi;colon"])
def test_a_directory_that_no_configuration_can_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabError, match=r"directory: .* choose another"):
        prepare(tmp_path / name, None, CONTROL)


def test_a_directory_without_a_lab_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"no lab here; start one with `python -m compose\.lab up"):
        load(tmp_path)


def test_a_damaged_description_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"directory": "x"}', encoding="ascii")
    with pytest.raises(LabError, match=r"lab\.json: not a description"):
        load(tmp_path)


def test_data_without_its_logins_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, None, CONTROL)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "lab.json").unlink()
    with pytest.raises(LabError, match="remove the directory"):
        prepare(tmp_path, None, CONTROL)


def test_a_lab_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    lab = prepare(tmp_path, None, CONTROL)
    logins = {purpose: login for purpose, login in lab.database.logins.items() if purpose in {"monitor", "application"}}
    save(lab.model_copy(update={"database": lab.database.model_copy(update={"logins": logins})}))
    assert load(tmp_path).database.logins == logins
    with pytest.raises(LabError, match=r"earlier version, .* remove the directory"):
        prepare(tmp_path, None, CONTROL)
