"""A simulated project as its world describes it again, and a lab that has no shop."""

import pytest
from google.cloud import redis_v1

from tasks.scenarios.google_cloud import restore_project
from tasks.scenarios.stage import InjectionFailedError, ShopLoads
from tests.google_cloud_world import GoogleProject


async def test_a_restored_project_is_as_described(google_cloud: GoogleProject) -> None:
    described = google_cloud.world.redis[0]
    google_cloud.admin.change_record(described.name, state="MAINTENANCE", labels={"app": "other"})
    await restore_project(google_cloud.description.admin_url, google_cloud.description.admin_token)
    client = redis_v1.CloudRedisClient(credentials=google_cloud.credentials(), transport="rest")
    found = client.get_instance(name=f"projects/{google_cloud.id}/locations/{described.region}/instances/{described.name}")
    assert (found.state, dict(found.labels)) == (redis_v1.Instance.State.READY, described.labels)
    with pytest.raises(InjectionFailedError, match=r"POST /reset: 401 .*admin token"):
        await restore_project(google_cloud.description.admin_url, "a guess")


async def test_a_lab_without_a_shop_refuses_its_loads() -> None:
    with pytest.raises(InjectionFailedError, match="the inventory names no shop"):
        await ShopLoads(None).start("cache/fill")
