"""What a lab is: its directory, ports, addresses and logins, kept in DIR/lab.json for whoever uses the lab."""

import hashlib
import importlib.util
import os
import random
import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

HOST = "127.0.0.1"
SERVICES = ("database", "cache", "web", "app", "traffic")
SAMPLE_APP = Path(__file__).resolve().parent.parent / "sample-app"
Purpose = Literal["monitor", "application", "maintenance", "admin"]


class LabError(Exception):
    """The lab can't do what was asked; the message names the remedy."""


class Model(BaseModel):
    """Immutable and strict about its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Login(Model):
    """A user of a server."""

    username: str
    password: str = Field(repr=False)


class Database(Model):
    """The PostgreSQL server."""

    host: str
    port: int
    dbname: str
    logins: dict[Purpose, Login]

    def conninfo(self, purpose: Purpose) -> str:
        """Connection URL of that login. It holds the password."""
        login = self.logins[purpose]
        return f"postgresql://{login.username}:{login.password}@{self.host}:{self.port}/{self.dbname}"


class Cache(Model):
    """The Valkey server. `username` and `password` are the monitor's."""

    host: str
    port: int
    logins: dict[Purpose, Login]
    config_path: Path

    @property
    def username(self) -> str:
        """The monitor's user, who may do everything."""
        return self.logins["monitor"].username

    @property
    def password(self) -> str:
        """The monitor's password."""
        return self.logins["monitor"].password

    def url(self, purpose: Purpose) -> str:
        """Connection URL of that login. It holds the password."""
        login = self.logins[purpose]
        return f"redis://{login.username}:{login.password}@{self.host}:{self.port}/0"


class Web(Model):
    """The Nginx server: `url` and `tls_url` end with a slash."""

    host: str
    port: int
    tls_port: int = Field(0, description="0 where it serves no TLS.")
    config_path: Path

    @property
    def url(self) -> str:
        """The page as a visitor gets it."""
        return f"http://{self.host}:{self.port}/"

    @property
    def tls_url(self) -> str:
        """The same page over TLS, with a certificate of the lab's own authority."""
        return f"https://{self.host}:{self.tls_port}/"

    @property
    def tls(self) -> Path:
        """Directory of the certificates: ca, shop (the installed one) and issued (one that may be installed), each .crt and .key."""
        return self.config_path.parent / "tls"

    @property
    def web_root(self) -> Path:
        """Directory of the files that Nginx serves itself."""
        return self.config_path.parent / "html"


class Endpoint(Model):
    """A server that answers HTTP: `url` ends with a slash."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Root of the server."""
        return f"http://{self.host}:{self.port}/"


class LabDescription(Model):
    """A lab: `services` says which of its servers are run; ports and logins last as long as its directory."""

    directory: Path
    control: Path = Field(description="The supervisor's control socket.")
    services: tuple[str, ...]
    database: Database
    cache: Cache
    web: Web
    app: Endpoint
    traffic: Endpoint

    @property
    def inventory_path(self) -> Path:
        """The inventory of this lab, with `${NAME}` for each password."""
        return self.directory / "inventory.yaml"

    @property
    def environment_path(self) -> Path:
        """NAME=value lines with the passwords that the inventory refers to."""
        return self.directory / "lab.env"

    def log_path(self, service: str) -> Path:
        """Where a service writes its output."""
        return self.directory / "log" / f"{service}.log"


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    draft.replace(path)


def cluster_name(directory: Path) -> str:
    """What PostgreSQL puts into the titles of its processes: another name for each directory."""
    return f"evenkeel-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"


def postgres_words(directory: Path) -> tuple[str, ...]:
    """Parts of the command lines of PostgreSQL's processes, with which those of another user can be told."""
    return (f"{directory}/postgres/", f"postgres: {cluster_name(directory)}: ")


def description_path(directory: Path) -> Path:
    """Where a directory's lab is described."""
    return directory / "lab.json"


def load(directory: Path) -> LabDescription:
    """The lab of a directory; LabError when there is none."""
    path = description_path(directory.resolve())
    try:
        return LabDescription.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{directory}: no lab here; start one with `python -m compose.lab up --directory {directory}`") from error
    except ValidationError as error:
        raise LabError(f"{path}: not a description of a lab; remove the directory and start again") from error


def save(lab: LabDescription) -> None:
    """Write DIR/lab.json, which holds passwords: mode 0600."""
    write_private(description_path(lab.directory), lab.model_dump_json(indent=2) + "\n")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on, all different.

    They lie below the range from which the kernel serves outgoing connections (ip_local_port_range): one of those could take the
    port of a server that is down for a moment.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:
        lowest = 32768
    candidates = range(10_000, lowest) if lowest > 12_000 else range(61_000, 65_536)
    found: list[int] = []
    for port in random.sample(candidates, k=len(candidates)):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise LabError("ports: no free ports on 127.0.0.1; stop some of the programs that listen there")


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def shop_path() -> str | None:
    """What PYTHONPATH needs for `python -m shop`: nothing where the package is installed. LabError where it is nowhere."""
    spec = importlib.util.find_spec("shop")
    if spec is not None and spec.origin is not None:
        return None
    if (SAMPLE_APP / "shop" / "__main__.py").is_file():
        return str(SAMPLE_APP)
    raise LabError(f"services: package `shop` is not installed and not in {SAMPLE_APP}; start the lab without app and traffic")
