"""What alerts say: where to look. What is wrong there, the probes measure; nothing of an alert reaches a planner.

The format is that of Alertmanager's webhook, version 4:
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from blocks.schema import Inventory, Resource
from tasks.core.errors import EvenkeelError

MAX_ALERTS = 1000
MAX_CAUSE = 80
RESOURCE_LABEL = "evenkeel_resource"
ADDRESS_LABELS = ("address", "instance")
CONTAINER_LABELS = ("container", "name")
DEFAULT_PORTS = {"http": 80, "https": 443}

Text = Annotated[str, StringConstraints(max_length=4096)]


class NotUnderstood(EvenkeelError):
    """What was posted is no notification; the message names the field."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alert(_Lenient):
    """One alert of a notification; what else it has is of no interest."""

    status: Literal["firing", "resolved"]
    labels: dict[Text, Text] = Field(max_length=100)


class Notification(_Lenient):
    """What Alertmanager posts."""

    version: Literal["4"]
    alerts: tuple[Alert, ...] = Field(max_length=MAX_ALERTS)


def read_notification(body: bytes) -> Notification:
    """The notification that a request's body holds. NotUnderstood names the field that does not fit, without its content."""
    try:
        return Notification.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]")[:MAX_CAUSE] or "body"
        said = "is missing; add it" if first["type"] == "missing" else first["msg"]
        raise NotUnderstood(f"{field}: {said}; post Alertmanager's webhook format, version 4") from None


def resources_of(labels: Mapping[str, str], inventory: Inventory) -> tuple[str, ...]:
    """Names of the resources that an alert is about.

    The label `evenkeel_resource` decides where it is given; else `address` or `instance`, a host:port or URL as the inventory has it,
    and the container's name in `container` or `name`. Empty: none that is known.
    """
    stated = labels.get(RESOURCE_LABEL)
    if stated is not None:
        return tuple(one.name for one in inventory.resources if one.name == stated)
    addresses = {_place(labels[name]) for name in ADDRESS_LABELS if labels.get(name)}
    containers = {labels[name] for name in CONTAINER_LABELS if labels.get(name)}
    return tuple(
        one.name
        for one in inventory.resources
        if addresses & set(_places(one)) or (one.container and one.container.container in containers)
    )


def cause_of(labels: Mapping[str, str]) -> str:
    """Why to look, in a few words that are safe to show."""
    return f"alert {plain(labels.get('alertname', '')) or 'without a name'}"


def plain(text: str) -> str:
    """A text from outside as part of a line: printable, and not long."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_CAUSE]).strip()


def _places(resource: Resource) -> Iterator[str]:
    if resource.container is None or resource.container.container != resource.address:
        yield _place(resource.address)


def _place(address: str) -> str:
    """Its host:port, in lower case: of a URL with the port of its scheme where none is given."""
    scheme, found, rest = address.strip().lower().partition("://")
    if not found:
        return scheme.split("/")[0]
    try:
        url = urlsplit(f"{scheme}://{rest}")
        return f"{url.hostname}:{url.port or DEFAULT_PORTS.get(scheme, '')}"
    except ValueError:  # no port, or no address of IPv6
        return rest.split("/")[0]
