"""Google's own client libraries, as they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
from google.auth.credentials import Credentials
from google.cloud import compute_v1, monitoring_v3, redis_v1
from googleapiclient import discovery

from tasks.clients.google_session import SessionHttp, open_session
from tests.google_cloud_world import GoogleProject

SECONDS = 20.0


def result(operation: Any) -> Any:
    """What a long-running operation of Memorystore gives in the end."""
    return operation.result(timeout=SECONDS)


@dataclass
class Libraries:
    """The clients of one identity."""

    credentials: Credentials

    @cached_property
    def instances(self) -> compute_v1.InstancesClient:
        """Compute Engine's."""
        return compute_v1.InstancesClient(credentials=self.credentials)

    @cached_property
    def operations(self) -> compute_v1.ZoneOperationsClient:
        """Compute Engine's operations."""
        return compute_v1.ZoneOperationsClient(credentials=self.credentials)

    @cached_property
    def redis(self) -> redis_v1.CloudRedisClient:
        """Memorystore."""
        return redis_v1.CloudRedisClient(credentials=self.credentials, transport="rest")

    @cached_property
    def monitoring(self) -> monitoring_v3.MetricServiceClient:
        """Cloud Monitoring."""
        return monitoring_v3.MetricServiceClient(credentials=self.credentials)

    @cached_property
    def session(self) -> Any:
        """HTTP with this identity's token."""
        return open_session(self.credentials)

    def discovered(self, api: str, version: str) -> Any:
        """What google-api-python-client makes of a discovery document."""
        return discovery.build(api, version, http=SessionHttp(self.session, SECONDS), static_discovery=True, cache_discovery=False)

    @cached_property
    def sql(self) -> Any:
        """Cloud SQL Admin."""
        return self.discovered("sqladmin", "v1")

    def close(self) -> None:
        """Close those that were opened."""
        for name in ("instances", "operations", "redis", "monitoring"):
            if name in self.__dict__:
                self.__dict__[name].transport.close()
        if "session" in self.__dict__:
            self.session.close()


@pytest.fixture(scope="module")
def libraries(google_records: GoogleProject) -> Iterator[Libraries]:
    """As the identity that may do everything; each opens when a test needs it."""
    opened = Libraries(google_records.credentials())
    yield opened
    opened.close()
