"""Least privilege in Google Cloud: what an identity needs, from what the probes and tools declare, and how it is granted. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from blocks.schema import Kind
from tasks.core.declare import Probe, Tool

ROLE = "evenkeel"
IAP = ("iap.tunnelInstances.accessViaIAP", "compute.instances.osLogin")
"""For `gcloud compute ssh`; roles/iap.tunnelResourceAccessor and roles/compute.osAdminLogin hold them."""


@dataclass(frozen=True)
class Need:
    """One permission."""

    permission: str
    wanted_by: tuple[str, ...]
    """Probes by their kind, tools by their name."""
    reads: bool
    """Whether a probe needs it: without it nothing is seen."""


def needs(probes: Mapping[Kind, Probe], tools: Iterable[Tool], kinds: Collection[Kind]) -> tuple[Need, ...]:
    """What these kinds take, what probes need first."""
    wanted: dict[str, list[str]] = defaultdict(list)
    reads = {permission for kind in kinds for permission in probes[kind].permissions}
    for kind in sorted(kinds):
        for permission in probes[kind].permissions:
            wanted[permission].append(f"probe {kind}")
    for tool in tools:
        if tool.service in kinds:
            for permission in tool.permissions:
                wanted[permission].append(tool.name)
    ordered = sorted(wanted, key=lambda permission: (permission not in reads, permission))
    return tuple(Need(permission, tuple(wanted[permission]), permission in reads) for permission in ordered)


def grants(project: str, member: str, every: Iterable[str]) -> tuple[str, ...]:
    """The commands that grant exactly these, as a role of the project's own; the first fails where it exists, then the second is for it."""
    listed = ",".join(sorted(every))
    role = f"projects/{project}/roles/{ROLE}"
    return (
        f"gcloud iam roles create {ROLE} --project={project} --title={ROLE} --permissions={listed}",
        f"gcloud iam roles update {ROLE} --project={project} --permissions={listed}",
        f"gcloud projects add-iam-policy-binding {project} --member={member} --role={role}",
    )
