"""Who may call the simulator: keys, tokens, permissions, and how each API says no."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google.auth
import httpx
import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from google.api_core import exceptions
from google.auth import compute_engine, impersonated_credentials
from google.auth.compute_engine import _metadata
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import compute_v1, monitoring_v3, redis_v1
from google.oauth2 import service_account
from googleapiclient.errors import HttpError

from compose.description import LabError
from compose.google_cloud.access import CLOUD_PLATFORM
from compose.google_cloud.faults import Fault
from tests.compose.google_cloud.conftest import Libraries
from tests.google_cloud_world import GoogleProject

HERE = "europe-west4-a"
URL = f"https://compute.googleapis.com/compute/v1/projects/evenkeel-lab/zones/{HERE}/instances/web-1"


def test_a_token_may_be_signed_by_the_caller_or_made_by_the_endpoint(google_cloud: GoogleProject) -> None:
    libraries = Libraries(google_cloud.credentials())
    libraries.instances.get(project=google_cloud.id, zone=HERE, instance="web-1")
    assert "oauth2.token" not in google_cloud.admin.calls()
    libraries.sql.instances().list(project=google_cloud.id).execute()
    assert google_cloud.admin.calls()["oauth2.token"] == 1
    libraries.close()


def key_of(google_cloud: GoogleProject) -> dict[str, Any]:
    """The key file's content."""
    content: dict[str, Any] = json.loads(google_cloud.key_path().read_text(encoding="utf-8"))
    return content


def signed(google_cloud: GoogleProject, key: Any = None, **claims: Any) -> str:
    """A JWT as the compute client signs it, with other claims."""
    known, now, email = key_of(google_cloud), int(time.time()), google_cloud.email()
    right = {"iss": email, "sub": email, "aud": "https://compute.googleapis.com/", "iat": now, "exp": now + 3600}
    return jwt.encode({**right, **claims}, key or known["private_key"], algorithm="RS256", headers={"kid": known["private_key_id"]})


WRONG_TOKENS: dict[str, tuple[Callable[[GoogleProject], str], int]] = {
    "none": (lambda _: "", 401),
    "made up": (lambda _: "ya29.made-up", 401),
    "expired": (lambda project: signed(project, iat=int(time.time()) - 7200, exp=int(time.time()) - 3600), 401),
    "of another key": (lambda project: signed(project, rsa.generate_private_key(65537, 2048)), 401),
    "of a stranger": (lambda project: signed(project, iss="stranger@evenkeel-lab.iam.gserviceaccount.com"), 401),
    "for too long": (lambda project: signed(project, exp=int(time.time()) + 7200), 401),
    "for another API": (lambda project: signed(project, aud="https://redis.googleapis.com/"), 403),
    "with too small a scope": (
        lambda project: signed(project, aud=None, scope="https://www.googleapis.com/auth/devstorage.read_only"),
        403,
    ),
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
def test_a_token_that_is_not_right_is_refused(google_cloud: GoogleProject, name: str) -> None:
    make, code = WRONG_TOKENS[name]
    assert requests.get(URL, headers={"authorization": f"Bearer {signed(google_cloud)}"}, timeout=20).status_code == 200
    answer = requests.get(URL, headers={"authorization": f"Bearer {make(google_cloud)}"}, timeout=20)
    assert answer.status_code == answer.json()["error"]["code"] == code
    assert ("www-authenticate" in answer.headers) is (code == 401)


def test_the_token_endpoint_refuses_what_is_not_signed_by_the_account(google_cloud: GoogleProject, tmp_path: Path) -> None:
    def refused(scopes: tuple[str, ...] = (CLOUD_PLATFORM,), **changes: str) -> RefreshError:
        path = tmp_path / "key.json"
        path.write_text(json.dumps({**key_of(google_cloud), **changes}))
        credentials = service_account.Credentials.from_service_account_file(str(path), scopes=scopes)  # type: ignore[no-untyped-call]
        with pytest.raises(RefreshError) as caught:
            AuthorizedSession(credentials).get(URL)  # type: ignore[no-untyped-call]
        return caught.value

    other = json.loads(google_cloud.key_path("reader").read_text(encoding="utf-8"))
    assert "Invalid JWT Signature" in str(refused(private_key=other["private_key"]))
    assert "Invalid JWT Signature" in str(refused(private_key_id="0" * 40))
    assert "account not found" in str(refused(client_email="stranger@evenkeel-lab.iam.gserviceaccount.com"))
    assert "Invalid OAuth scope" in str(refused(scopes=()))


def test_every_api_says_no_in_its_own_way(google_cloud: GoogleProject) -> None:
    reader, nobody = Libraries(google_cloud.credentials("reader")), Libraries(google_cloud.credentials("nobody"))
    resource = f"projects/evenkeel-lab/zones/{HERE}/instances/web-1"
    with pytest.raises(exceptions.Forbidden, match=f"Required 'compute.instances.stop' permission for '{resource}'"):
        reader.instances.stop_unary(project=google_cloud.id, zone=HERE, instance="web-1")
    with pytest.raises(HttpError, match="not authorized to make this request") as sql:
        reader.sql.instances().restart(project=google_cloud.id, instance="orders").execute()
    assert "cloudsql" not in str(sql.value.error_details)  # Cloud SQL does not say which permission
    with pytest.raises(exceptions.Forbidden, match=r"redis\.instances\.failover") as redis:
        reader.redis.failover_instance(name="projects/evenkeel-lab/locations/europe-west4/instances/pages")
    assert redis.value.reason == "IAM_PERMISSION_DENIED"
    with pytest.raises(exceptions.PermissionDenied, match=r"monitoring\.timeSeries\.list"):
        list(nobody.monitoring.list_time_series(name="projects/evenkeel-lab", filter="", interval=monitoring_v3.TimeInterval()))
    assert [one.outcome for one in google_cloud.admin.mutations()] == ["refused 403"] * 3
    for opened in (reader, nobody):
        opened.close()


def test_what_is_not_there_is_not_found(google_cloud: GoogleProject, libraries: Libraries) -> None:
    with pytest.raises(exceptions.NotFound, match="instances/web-9' was not found"):
        libraries.instances.get(project=google_cloud.id, zone=HERE, instance="web-9")
    with pytest.raises(HttpError, match="instance does not exist"):
        libraries.sql.instances().get(project=google_cloud.id, instance="none").execute()
    with pytest.raises(exceptions.NotFound):
        libraries.redis.get_instance(name="projects/evenkeel-lab/locations/us-central1/instances/pages")
    with pytest.raises(exceptions.Forbidden):
        libraries.instances.get(project="another-project", zone=HERE, instance="web-1")


def test_permissions_are_taken_and_given_back(google_cloud: GoogleProject, libraries: Libraries) -> None:
    def get() -> compute_v1.Instance:
        return libraries.instances.get(project=google_cloud.id, zone=HERE, instance="web-1")

    google_cloud.admin.permit("evenkeel", ())
    with pytest.raises(exceptions.Forbidden):
        get()
    google_cloud.admin.reset()
    fault = google_cloud.admin.add(Fault(deny="compute.instances.*", identity="evenkeel"))
    with pytest.raises(exceptions.Forbidden, match=r"compute\.instances\.get"):
        get()
    google_cloud.admin.remove(fault)
    assert get().name == "web-1"


def test_revoked_tokens_are_made_anew(google_cloud: GoogleProject, libraries: Libraries) -> None:
    instances = libraries.sql.instances()
    instances.list(project=google_cloud.id).execute()
    google_cloud.admin.revoke_tokens()
    assert len(instances.list(project=google_cloud.id).execute()["items"]) == 2
    assert google_cloud.admin.calls()["oauth2.token"] >= 1


def test_one_account_acts_as_another_that_it_may_impersonate(google_cloud: GoogleProject) -> None:
    def acting(target: str) -> redis_v1.CloudRedisClient:
        credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            google_cloud.credentials(), google_cloud.email(target), [CLOUD_PLATFORM]
        )
        return redis_v1.CloudRedisClient(credentials=credentials, transport="rest")

    reader = acting("reader")
    assert reader.get_instance(name="projects/evenkeel-lab/locations/europe-west4/instances/pages").memory_size_gb == 1
    with pytest.raises(exceptions.Forbidden):
        reader.failover_instance(name="projects/evenkeel-lab/locations/europe-west4/instances/pages")
    with pytest.raises(RefreshError, match="getAccessToken"):
        acting("nobody").get_instance(name="projects/evenkeel-lab/locations/europe-west4/instances/pages")
    assert {one.identity for one in google_cloud.admin.mutations()} == {"reader"}


def test_a_machine_of_googles_finds_its_project_and_its_tokens(google_cloud: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> None:
    host = google_cloud.description.metadata_host
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)  # it is read from the environment once, on import
    monkeypatch.setenv("GCE_METADATA_IP", host)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    credentials: Any
    credentials, project = google.auth.default(scopes=[CLOUD_PLATFORM])
    assert (type(credentials), project) == (compute_engine.Credentials, google_cloud.id)
    answer = AuthorizedSession(credentials).get(URL)  # type: ignore[no-untyped-call]
    assert (answer.json()["name"], credentials.service_account_email) == ("web-1", google_cloud.email())


def test_the_proxy_leads_to_google_alone_and_the_knobs_need_their_token(google_cloud: GoogleProject) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://example.com/", timeout=20)
    answer = httpx.get(f"{google_cloud.description.admin_url}/journal", trust_env=False)
    assert answer.status_code == 401
    with pytest.raises(LabError, match="no such instance"):
        google_cloud.admin.change_record("web-9", status="RUNNING")


def test_a_violation_on_either_side_is_written_down(google_cloud: GoogleProject, libraries: Libraries) -> None:
    gcloud = {"user-agent": "google-cloud-sdk gcloud/550.0.0"}
    assert libraries.session.get(f"{URL}?view=FULL", headers=gcloud, timeout=20).status_code == 200
    libraries.session.get(f"{URL}?view=FULL", timeout=20)
    libraries.session.get(f"{URL}?fields=name", timeout=20)  # Google takes it, the simulator does not
    libraries.session.post(f"{URL}/resume", timeout=20)  # a method that is not simulated
    libraries.session.get(f"{URL}/nothing/of/the/kind", timeout=20)
    google_cloud.admin.change_record("web-1", status="STARTED")
    libraries.session.get(URL, timeout=20)
    found = [(one.side, one.method.rsplit(".", 1)[-1], one.problem) for one in google_cloud.admin.violations()]
    google_cloud.admin.forgive()
    assert [side for side, _, _ in found] == ["request", "request", "request", "request", "answer"]
    assert found[0][2] == "parameter view: the method has none such"
    assert found[1][2] == "parameter fields: the simulator does not honour it"
    assert found[4][2] == "body.status: 'STARTED' is none of its values"
