"""A simulated Google Cloud project for tests: one process a pytest worker, and the environment that leads Google's libraries to it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compose.google_cloud.admin_client import Admin
from compose.google_cloud.description import CloudDescription, load_cloud
from compose.google_cloud.world import (
    FULL,
    READING,
    CloudIdentity,
    ComputeDescribed,
    Delays,
    RedisDescribed,
    SqlDescribed,
    World,
    save_world,
)

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

SHOP = {"app": "shop"}
RECORDS = World(
    identities=(
        CloudIdentity(
            name="evenkeel", permissions=(*FULL, "cloudsql.instances.failover", "cloudsql.tiers.list"), may_impersonate=("reader",)
        ),
        CloudIdentity(name="reader", permissions=READING),
        CloudIdentity(name="nobody", permissions=()),
    ),
    compute=(
        ComputeDescribed(name="web-1", labels=SHOP, plane=False),
        ComputeDescribed(name="web-2", zone="us-central1-a", status="TERMINATED", plane=False),
    ),
    sql=(
        SqlDescribed(name="orders", labels=SHOP, plane=False),
        SqlDescribed(name="ledger", region="us-central1", availability="REGIONAL", plane=False),
    ),
    redis=(
        RedisDescribed(name="pages", tier="STANDARD_HA", labels=SHOP, plane=False),
        RedisDescribed(name="queue", region="us-central1", plane=False),
    ),
    delays=Delays(operation_seconds=0.1),
)
"""The world of most tests: records alone, which answer within milliseconds."""


@dataclass(frozen=True)
class GoogleProject:
    """A running simulator."""

    directory: Path
    world: World
    description: CloudDescription
    admin: Admin

    @property
    def id(self) -> str:
        """The project's."""
        return self.description.project

    def key_path(self, identity: str = "evenkeel") -> Path:
        """The identity's service account key."""
        return self.description.key_paths[identity]

    def email(self, identity: str = "evenkeel") -> str:
        """The service account's."""
        return f"{identity}@{self.id}.iam.gserviceaccount.com"

    def credentials(self, identity: str = "evenkeel") -> "Credentials":
        """By the identity's key; every call gives new ones."""
        from google.oauth2 import service_account

        made: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(self.key_path(identity)), scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )
        return made


@contextmanager
def project_playing(world: World, directory: Path, authority: Path) -> Iterator[GoogleProject]:
    """A simulator of that world, in a process of its own. `authority` is the fixture `google_authority`, and no other."""
    directory.mkdir(parents=True, exist_ok=True)
    save_world(directory, world)
    words = ["-m", "compose.google_cloud", "--directory", str(directory), "--authority", str(authority), "--lifeline"]
    log = directory / "simulator.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said == b"ready\n", said.decode() + log.read_text()
            description = load_cloud(directory)
            admin = Admin(description)
            yield GoogleProject(directory, world, description, admin)
            assert admin.unforgiven() == 0, "exchanges violated Google's documents"
            admin.close()
        finally:
            process.stdin.close()
            process.stdout.read()


@pytest.fixture(scope="session")
def google_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the one authority that this process believes: gRPC reads once which it is."""
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="session")
def google_records(tmp_path_factory: pytest.TempPathFactory, google_authority: Path) -> Iterator[GoogleProject]:
    """The simulator of `RECORDS`; tests use `google_cloud`."""
    with project_playing(RECORDS, tmp_path_factory.mktemp("google"), google_authority) as project:
        yield project


def lead_to(project: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's Google libraries at the project."""
    for name, value in project.description.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def google_cloud(google_records: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    """The project as described, reached by this process; afterwards no exchange may have violated Google's documents."""
    lead_to(google_records, monkeypatch)
    google_records.admin.reset()
    yield google_records
    assert google_records.admin.violations() == []
