"""The zones and regions of Compute Engine."""

from compose.google_cloud.compute_engine import LISTING, link, listed
from compose.google_cloud.listing import matching
from compose.google_cloud.project import Project, number_of
from compose.google_cloud.serving import Call, JsonObject, serves


def _place(project: Project, kind: str, name: str, others: JsonObject) -> JsonObject:
    plural = f"{kind}s"
    common = {"kind": f"compute#{kind}", "id": str(number_of(name)), "name": name, "description": name, "status": "UP"}
    return {**common, **others, "selfLink": link(project, plural, name)}


@serves("compute.zones.list", "compute.zones.list", query=LISTING)
async def list_zones(project: Project, call: Call) -> JsonObject:
    """The zones that there are."""
    zones = [_place(project, "zone", zone, {"region": link(project, "regions", zone.rsplit("-", 1)[0])}) for zone in project.zones]
    holds = matching(call.query.get("filter", ""))
    return listed([zone for zone in zones if holds(zone)], call, "compute#zoneList", link(project, "zones"))


@serves("compute.regions.list", "compute.regions.list", query=LISTING)
async def list_regions(project: Project, call: Call) -> JsonObject:
    """The regions that there are."""
    zones = {region: [link(project, "zones", zone) for zone in project.zones if zone.startswith(region)] for region in project.regions}
    regions = [_place(project, "region", region, {"zones": inside}) for region, inside in zones.items()]
    holds = matching(call.query.get("filter", ""))
    return listed([region for region in regions if holds(region)], call, "compute#regionList", link(project, "regions"))
