"""The metadata server, by which a program on a Google machine finds its project and its tokens (Application Default Credentials)."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from compose.google_cloud.access import CLOUD_PLATFORM, Access
from compose.google_cloud.faults import Faults, LineCut, suffer
from compose.google_cloud.refusals import Refused

FLAVOR = {"Metadata-Flavor": "Google"}
ACCOUNT = "/computeMetadata/v1/instance/service-accounts/{account}"


def metadata_app(project: str, number: int, access: Access, faults: Faults) -> Starlette:
    """It answers for the world's first identity."""
    identity = next(iter(access.identities.values()))

    async def ping(_request: Request) -> Response:
        return PlainTextResponse("computeMetadata/\n", headers=FLAVOR)

    async def project_id(_request: Request) -> Response:
        return PlainTextResponse(project, headers=FLAVOR)

    async def numeric_project_id(_request: Request) -> Response:
        return PlainTextResponse(str(number), headers=FLAVOR)

    async def universe(_request: Request) -> Response:
        return PlainTextResponse("googleapis.com", headers=FLAVOR)

    async def email(_request: Request) -> Response:
        return PlainTextResponse(identity.email, headers=FLAVOR)

    async def account(_request: Request) -> Response:
        return JSONResponse({"aliases": ["default"], "email": identity.email, "scopes": [CLOUD_PLATFORM]}, headers=FLAVOR)

    async def token(request: Request) -> Response:
        try:
            for fault in faults.meeting("metadata.token", "token", identity.described.name):
                await suffer(fault)
        except LineCut:
            return PlainTextResponse("", 500)
        except Refused as refusal:
            return PlainTextResponse(refusal.message, refusal.status, {**FLAVOR, **refusal.headers})
        scopes = request.query_params.get("scopes", CLOUD_PLATFORM).split(",")
        return JSONResponse(access.mint(identity.email, frozenset(scopes)), headers=FLAVOR)

    routes = {
        "/": ping,
        "/computeMetadata/v1/": ping,
        "/computeMetadata/v1/project/project-id": project_id,
        "/computeMetadata/v1/project/numeric-project-id": numeric_project_id,
        "/computeMetadata/v1/universe/universe-domain": universe,
        f"{ACCOUNT}/": account,
        f"{ACCOUNT}/email": email,
        f"{ACCOUNT}/token": token,
    }
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes.items()])
