"""The section `gcp` and its block: what is refused and how, and which credentials come of it."""

import json
import uuid
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.settings import PREFECT_API_URL

from blocks import documents
from blocks.errors import ConfigurationError
from blocks.gcp import GcpProject, load_gcp
from blocks.gcp_section import Gcp
from blocks.inventory_file import parse_inventory
from blocks.register import Saved, register

EMAIL = "keeper@shop-prod.iam.gserviceaccount.com"


def key_file(private_key: str) -> str:
    fields = {"type": "service_account", "client_email": EMAIL, "private_key": private_key, "private_key_id": "1"}
    return json.dumps(fields | {"token_uri": "https://oauth2.googleapis.com/token", "project_id": "shop-prod"})


@pytest.fixture(scope="module")
def key() -> str:
    """A service account's key file, made anew."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_file(pem.decode())


MACHINE = "  - {name: vm, kind: compute_engine, address: shop-vm}"


def text(section: str, name: str = "cloud") -> str:
    return f"name: {name}\nresources:\n{MACHINE}\n{section}\n"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("", "line 3: resources.vm.kind: compute_engine is reached through a section `gcp`; add gcp: {project: my-project"),
        ("gcp: null", "resources.vm.kind: compute_engine is reached through a section `gcp`"),
        ("gcp: {}", "line 4: gcp.project: is missing; add it"),
        ("gcp: {project: 424242}", "line 4: gcp.project: "),
        (
            "gcp: {project: shop-prod, service_account: '{}'}",
            "line 4: gcp.service_account: a secret in plain text; write ${GCP_SERVICE",
        ),
        (
            'gcp: {project: shop-prod, service_account: "${PATH_OF_KEY}"}',
            "gcp.service_account: the variable must hold the JSON of",
        ),
        ("gcp: {project: shop-prod, impersonate: reader}", "gcp.impersonate: write the service account's email"),
        ("gcp: {project: shop-prod, discover: {kinds: [redis]}}", "gcp.discover: kinds: redis is not found through Google's API"),
        ("gcp: {project: shop-prod, discover: {labels: {App: Shop}}}", "gcp.discover: labels: App=Shop can't be a label"),
        ("gcp: {project: shop-prod, regions: []}", "gcp.regions: no such field; known: "),
    ],
)
def test_a_section_that_can_not_work_is_refused_with_its_remedy(section: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_inventory(text(section), {"PATH_OF_KEY": "/etc/keeper.json"})
    assert any(problem in one for one in refused.value.problems), refused.value.problems


@pytest.mark.usefixtures("prefect_server")
async def test_the_project_is_saved_loaded_and_forgotten_with_its_key_hidden(key: str) -> None:
    name = f"cloud-{uuid.uuid4().hex[:8]}"
    section = 'gcp: {project: shop-prod, service_account: "${KEY}", discover: {labels: {app: shop}, kinds: [cloud_sql]}}'
    registration = parse_inventory(text(section, name), {"KEY": key})
    await register(registration)
    assert await register(registration) == Saved(written=0, deleted=0)
    block = await load_gcp(name)
    assert block is not None
    assert block.discover is not None
    assert (block.project, block.discover.labels, [*block.discover.kinds]) == ("shop-prod", {"app": "shop"}, ["cloud_sql"])
    credentials, identity = await block.credentials()
    assert (identity, credentials.scopes) == (EMAIL, ["https://www.googleapis.com/auth/cloud-platform"])  # type: ignore[attr-defined]
    again = await load_gcp(name)
    assert again is not None
    assert (await again.credentials())[0] is credentials, "the token is kept for the process"
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        shown = (await http.post("/block_documents/filter", json={"block_documents": {"name": {"any_": [name]}}})).text
    secret = json.loads(key)["private_key"].splitlines()[3]
    assert "shop-prod" in shown
    for said in (shown, repr(block), str(registration)):
        assert secret not in said
    async with get_client() as client:
        (document,) = (await documents.read(client, GcpProject, [name])).values()
        broken = {**document.data, "project": "X"}
        await client.update_block_document(document.id, BlockDocumentUpdate(data=broken, merge_existing_data=False))
    with pytest.raises(ConfigurationError, match=f"gcp '{name}': project: .*register the YAML file again"):
        await load_gcp(name)
    local = f"name: {name}\nresources:\n  - {{name: page, kind: http, address: 'http://127.0.0.1/'}}"
    assert (await register(parse_inventory(local, {}))).deleted == 1
    assert await load_gcp(name) is None


@pytest.fixture
def no_own_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that Google gave no identity; its home."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    return tmp_path


async def test_without_a_key_the_machines_own_credentials_serve_or_are_asked_for(no_own_credentials: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gcp.service_account: none is given.*application-default login"):
        await GcpProject(project="shop-prod").credentials()
    own = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r", "account": "ann@example.com"}
    (no_own_credentials / "application_default_credentials.json").write_text(json.dumps(own))
    credentials, identity = await GcpProject(project="shop-prod").credentials()
    assert identity == "ann@example.com"
    assert not credentials.valid
    _, assumed = await GcpProject(project="shop-prod", impersonate=EMAIL).credentials()
    assert assumed == EMAIL


async def test_a_key_that_is_none_is_named_and_never_shown(key: str) -> None:
    broken = key_file(json.loads(key)["private_key"].replace("A", "B"))
    gcp = Gcp.model_validate({"project": "shop-prod", "service_account": broken})
    with pytest.raises(ConfigurationError, match=r"gcp.service_account: .*make a new key") as refused:
        await GcpProject.model_validate({name: getattr(gcp, name) for name in Gcp.model_fields}).credentials()
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert "PRIVATE KEY" not in str(refused.value)
