"""People are told, by Prefect automations: when a remediation is escalated, fails or waits for an answer, and when monitoring stops.

One set for all inventories of a Prefect server. It belongs to the inventory that was registered last with a `notify` section, and
goes when that one is registered without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SendgridEmail, SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterName
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_UI_URL
from prefect.types import SecretDict
from prefect.utilities.urls import url_for

from blocks.documents import read, write
from blocks.notify import Notify
from blocks.pulse import MONITORS, SWEPT

BLOCK = "evenkeel-notify"
"""Name of the block of each channel."""
CHANNELS: tuple[type[Block], ...] = (SlackWebhook, SendgridEmail, Webhook)
TAG = "evenkeel"
"""What the runs that are looked at are tagged with."""
HEALING_FLOWS = ["remediate", "approve"]


@dataclass(frozen=True)
class Situation:
    """When people are told. The name is nearly all that the UI's list of automations shows."""

    name: str
    description: str
    states: tuple[str, ...]
    headline: str


SITUATIONS = (
    Situation(
        "evenkeel: tell people when a remediation is escalated",
        "A person is needed: what was planned is not allowed, did not help, or nobody answered in time.",
        ("Escalated",),
        "A person is needed",
    ),
    Situation(
        "evenkeel: tell people when a remediation fails",
        "A remediation ended by an error, or its process vanished; the resource may still be unwell.",
        ("Failed", "Crashed"),
        "A remediation failed",
    ),
    Situation(
        "evenkeel: tell people when an approval is needed",
        "A plan waits for an answer; its run shows what would be done in a form.",
        ("Suspended",),
        "An approval is needed",
    ),
)

SILENCE = "evenkeel: tell people when monitoring stops"
NAMES = (*(situation.name for situation in SITUATIONS), SILENCE)

# Prefect's own message of an error repeats the exception, which may quote what it was called with.
SAID = (
    "{% set said = flow_run.state.message or '' %}"
    "{% if 'encountered an exception' in said or 'Traceback' in said %}{% set said = 'ended by an error; its log says which' %}{% endif %}"
)


@dataclass(frozen=True)
class Announced:
    """How many blocks and automations were written and deleted."""

    written: int = 0
    deleted: int = 0


async def save_notifications(client: PrefectClient, inventory: str, notify: Notify | None) -> Announced:
    """Save the channels and automations of an inventory's `notify` section, or remove what it had declared before.

    What is saved already is not written again; an automation that a person has switched off stays so.
    """
    saved = await _saved(client)
    if notify is None:
        owned = [one for one in saved if _owner_tag(inventory) in one.tags]
        for one in owned:
            await client.delete_automation(one.id)
        return Announced(deleted=len(owned) + (await _delete_channels(client, CHANNELS) if owned else 0))
    blocks = channels(notify)
    written = 0
    for block in blocks:
        written += await write(client, {BLOCK: block})
    ids: dict[type[Block], UUID] = {}
    for block in blocks:
        ids[type(block)] = (await read(client, type(block), [BLOCK]))[BLOCK].id
    known: dict[str, Automation] = {}
    for one in saved:
        known.setdefault(one.name, one)
    for wanted in (*(automation(situation, inventory, ids) for situation in SITUATIONS), dead_man(notify, inventory, ids)):
        written += await _write(client, known.get(wanted.name), wanted)
    doubles = [one for one in saved if one is not known[one.name]]
    for one in doubles:
        await client.delete_automation(one.id)
    gone = await _delete_channels(client, [channel for channel in CHANNELS if channel not in ids])
    return Announced(written, len(doubles) + gone)


def channels(notify: Notify) -> list[Block]:
    """The blocks that a section asks for; the only place of their secrets."""
    found: list[Block] = []
    if notify.slack is not None:
        found.append(SlackWebhook(url=notify.slack))
    if notify.email is not None:
        email = notify.email
        found.append(SendgridEmail(api_key=email.sendgrid_api_key, sender_email=email.sender, to_emails=list(email.recipients)))
    if notify.webhook is not None:
        # Not the "Custom Webhook" notification block: where the receiver refuses, that one writes its URL into the server's log.
        found.append(Webhook(url=notify.webhook, headers=SecretDict({"content-type": "application/json"})))
    return found


def automation(situation: Situation, inventory: str, ids: Mapping[type[Block], UUID]) -> AutomationCore:
    """What is to be saved for a situation, given the ids of the channels' blocks."""
    return AutomationCore(
        name=situation.name,
        description=situation.description,
        tags=[TAG, _owner_tag(inventory)],
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in situation.states},
            match_related=[
                ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": HEALING_FLOWS}),
                ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}),
            ],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_action(channel, block_id, situation) for channel, block_id in ids.items()],
    )


def dead_man(notify: Notify, inventory: str, ids: Mapping[type[Block], UUID]) -> AutomationCore:
    """What is to be saved for the case that a monitor which was at work sweeps no more: it fires once, and anew after the next sweep."""
    seconds = notify.silence_seconds
    return AutomationCore(
        name=SILENCE,
        description=f"No monitor run of an inventory has swept for {seconds:g} s: nothing watches it. Is the worker at work?",
        tags=[TAG, _owner_tag(inventory)],
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": f"{MONITORS}.*"}),
            # Each sweep is followed by another, or by this.
            after={SWEPT},
            expect={SWEPT},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[_silence_action(channel, block_id, seconds) for channel, block_id in ids.items()],
    )


def _silence_action(channel: type[Block], block_id: UUID, seconds: float) -> ActionTypes:
    monitor, last = "event.resource.name", "event.occurred.isoformat()"
    address = f"{PREFECT_UI_URL.value() or ''}/v2/deployments"
    if channel is not Webhook:
        body = f"No sweep for {seconds:g} s; the last one was at {{{{ {last} }}}}.\n{address}"
        return SendNotification(block_document_id=block_id, subject=f"Nothing watches {{{{ {monitor} }}}}", body=body)
    fields = {
        "text": f"'Nothing watches ' ~ {monitor} ~ ': no sweep for {seconds:g} s; the last one was at ' ~ {last} ~ '\n{address}'",
        "situation": "'Monitoring has stopped'",
        "monitor": monitor,
        "last_sweep": last,
        "url": f"'{address}'",
    }
    return CallWebhook(block_document_id=block_id, payload=_json(fields))


def _json(fields: Mapping[str, str]) -> str:
    """A template of a JSON object with these expressions as its values."""
    inside = ", ".join(f'"{name}": {{{{ ({value})|tojson }}}}' for name, value in fields.items())
    return f"{{{inside}}}"


def _action(channel: type[Block], block_id: UUID, situation: Situation) -> ActionTypes:
    text = f"{SAID}{{{{ flow_run.name }}}}\n{{% if said %}}{{{{ said }}}}\n{{% endif %}}{_link()}"
    if channel is not Webhook:
        return SendNotification(block_document_id=block_id, subject=f"{situation.headline}: {{{{ flow_run.name }}}}", body=text)
    # `text` is what chat services show of a webhook's body.
    fields = {
        "text": f"'{situation.headline}: ' ~ flow_run.name ~ '\n' ~ (said ~ '\n' if said else '') ~ link",
        "situation": f"'{situation.headline}'",
        "run": "flow_run.name",
        "state": "flow_run.state.name",
        "message": "said",
        "inventory": "flow_run.parameters.inventory or none",
        "tags": "flow_run.tags",
        "url": "link",
    }
    return CallWebhook(block_document_id=block_id, payload=f"{SAID}{{% set link %}}{_link()}{{% endset %}}{_json(fields)}")


def _link() -> str:
    """A run's address in the UI, as whoever registers reaches it: the server may not know its own."""
    nowhere = UUID(int=0)
    address = url_for("flow-run", obj_id=nowhere, url_type="ui") or f"run {nowhere}"
    return address.replace(str(nowhere), "{{ flow_run.id }}")


def _owner_tag(inventory: str) -> str:
    return f"inventory:{inventory}"


async def _saved(client: PrefectClient) -> list[Automation]:
    names = AutomationFilter(name=AutomationFilterName(any_=list(NAMES)))
    return await client.read_automations(automations=names)


async def _write(client: PrefectClient, saved: Automation | None, wanted: AutomationCore) -> int:
    if saved is None:
        await client.create_automation(wanted)
        return 1
    wanted = wanted.model_copy(update={"enabled": saved.enabled})
    if saved.model_dump(exclude={"id"}) == wanted.model_dump():
        return 0
    # An update takes no owner resource, and leaves out only what was not set.
    changed = wanted.model_dump(exclude={"owner_resource"})
    await client.update_automation(saved.id, AutomationCore.model_validate(changed))
    return 1


async def _delete_channels(client: PrefectClient, kinds: list[type[Block]] | tuple[type[Block], ...]) -> int:
    documents = [document for kind in kinds for document in (await read(client, kind, [BLOCK])).values()]
    for document in documents:
        await client.delete_block_document(document.id)
    return len(documents)
