"""Tokens and permissions: tokens in another account's name, where an account may be used from, and which permissions one has."""

from datetime import UTC, datetime, timedelta

from compose.google_cloud.access import LIFE_SECONDS
from compose.google_cloud.project import Project
from compose.google_cloud.refusals import Refused, not_found
from compose.google_cloud.serving import SERVED, Call, JsonObject, serves
from compose.google_cloud.world import FULL

LOGINS = {
    "compute.instances.get",
    "compute.instances.osAdminLogin",
    "compute.instances.osLogin",
    "compute.projects.get",
    "iam.serviceAccounts.actAs",
    "iap.tunnelInstances.accessViaIAP",
}
"""What else may be asked for: logging in over SSH."""


@serves("iamcredentials.projects.serviceAccounts.generateAccessToken", None)
async def generate_access_token(project: Project, call: Call) -> JsonObject:
    """A token for an account that the caller may impersonate."""
    email = call.path["name"].rsplit("/", 1)[1]
    identity = project.access.impersonated(call.identity, email)
    scopes = call.body.get("scope", [])
    if not scopes:
        raise Refused(400, "Request contains an invalid argument: scope.")
    seconds = int(float(str(call.body.get("lifetime", f"{LIFE_SECONDS}s")).removesuffix("s")))
    token = project.access.mint(identity.email, frozenset(scopes), seconds)
    # To the second: google-auth reads no fraction.
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"accessToken": token["access_token"], "expireTime": expires}


@serves("iamcredentials.projects.serviceAccounts.getAllowedLocations", None)
async def get_allowed_locations(_project: Project, _call: Call) -> JsonObject:
    """No bounds: everywhere."""
    return {"encodedLocations": "0x0"}


@serves("cloudresourcemanager.projects.testIamPermissions", None)
async def test_iam_permissions(project: Project, call: Call) -> JsonObject:
    """Those of the permissions that the caller has."""
    if call.path["resource"].rsplit("/", 1)[-1] != project.id:
        raise not_found("cloudresourcemanager", call.resource)
    asked = call.body.get("permissions", [])
    if len(asked) > 100 or any("*" in permission for permission in asked):
        raise Refused(400, "Request contains an invalid argument: permissions (at most 100, no wildcards).")
    known = {*FULL, *LOGINS, *(served.permission for served in SERVED.values())}
    for permission in asked:
        if permission not in known:
            raise Refused(400, f"Permission {permission} is not valid for this resource.")
    held = [permission for permission in asked if permission in call.identity.permissions]
    return {"permissions": held} if held else {}
