"""An inventory's YAML: text and environment in, a checked registration out. Pure: no Prefect, no I/O, no environment of its own."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from blocks.alerts_section import Alerts
from blocks.errors import ConfigurationError
from blocks.explaining import explained, within
from blocks.gcp_section import Gcp
from blocks.gemini_section import SECRETS as GEMINI_SECRETS
from blocks.gemini_section import Gemini, gemini_of_environment
from blocks.lines import Location, read_yaml
from blocks.mcp_section import McpAccess
from blocks.model import Model
from blocks.naming import block_owners
from blocks.notify import SECRETS, Notify
from blocks.records_url import records_url
from blocks.schema import CLOUD_KINDS, Inventory

M = TypeVar("M", bound=Model)
OWN_SECTIONS = ("notify", "gemini", "gcp", "alerts", "mcp")
"""Beside the inventory itself, each with secrets of its own."""
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Credential(Model):
    """A login with its password."""

    username: str
    password: SecretStr


class Registration(Model):
    """What a file asks to be saved. None for the records: keep what is saved, else the default; for `notify`: tell nobody."""

    inventory: Inventory
    logins: dict[tuple[str, str], Credential]
    records_url: SecretStr | None = None
    retention_days: float | None = None
    notify: Notify | None = None
    gemini: Gemini | None = None
    gcp: Gcp | None = None
    alerts: Alerts | None = None
    mcp: McpAccess | None = None


class _LoginEntry(Model):
    username: str = Field(min_length=1)
    password: Any


class _RecordsEntry(Model):
    url: str | None = None
    retention_days: float | None = Field(None, gt=0)


def parse_inventory(text: str, environment: Mapping[str, str]) -> Registration:
    """The registration that a YAML text describes; passwords come from the environment.

    ConfigurationError lists every problem with its line, field and remedy, and never holds a password.
    """
    data, lines = read_yaml(text)
    if not isinstance(data, dict):
        raise ConfigurationError("line 1: an inventory is a mapping of fields; start from blocks/inventory.example.yaml")
    return _Reading(data, lines, environment).registration()


class _Reading:
    """One file being read; collects its problems."""

    def __init__(self, data: dict[str, Any], lines: Mapping[Location, int], environment: Mapping[str, str]) -> None:
        self._data = data
        self._lines = lines
        self._environment = environment
        self._problems: list[tuple[int, str]] = []

    def registration(self) -> Registration:
        records = self._records(self._data.get("records"))
        notify = self._notify(self._data["notify"]) if "notify" in self._data else None
        gemini = self._gemini()
        gcp = self._section(Gcp, "gcp", ("service_account",))
        alerts, mcp = self._section(Alerts, "alerts", ("token",)), self._section(McpAccess, "mcp", ("token",))
        self._refuse_misplaced({name: value for name, value in self._data.items() if name not in OWN_SECTIONS}, ())
        credentials: dict[tuple[str, str], Credential] = {}
        resources = self._data.get("resources")
        if isinstance(resources, list):
            resources = [self._without_logins(one, position, credentials) for position, one in enumerate(resources)]
        fields = {name: value for name, value in self._data.items() if name not in {"records", "resources", *OWN_SECTIONS}}
        inventory = self._checked(
            Inventory, fields | ({} if resources is None else {"resources": resources}), (), also=("records", *OWN_SECTIONS)
        )
        if inventory is not None:
            self._refuse_two_passwords(inventory, credentials)
            self._refuse_without_project(inventory)
        if self._problems or inventory is None:
            raise ConfigurationError([text for _, text in sorted(self._problems, key=lambda problem: problem[0])])
        return Registration(
            inventory=inventory,
            logins=credentials,
            records_url=records[0],
            retention_days=records[1],
            notify=notify,
            gemini=gemini,
            gcp=gcp,
            alerts=alerts,
            mcp=mcp,
        )

    def _records(self, entry: Any) -> tuple[SecretStr | None, float | None]:
        checked = None if entry is None else self._checked(_RecordsEntry, entry, ("records",))
        if checked is None:
            return None, None
        url = None if checked.url is None else self._resolved_url(checked.url, ("records", "url"))
        return url, checked.retention_days

    def _notify(self, entry: Any) -> Notify | None:
        resolved = copy.deepcopy(entry)
        before = len(self._problems)
        for *path, name in SECRETS:
            within = resolved
            for part in path:
                within = within.get(part) if isinstance(within, dict) else None
            if isinstance(within, dict) and name in within:
                within[name] = self._password(within[name], ("notify", *path, name), "secret")
        return self._checked(Notify, resolved, ("notify",)) if len(self._problems) == before else None

    def _gemini(self) -> Gemini | None:
        if "gemini" not in self._data:
            try:
                return gemini_of_environment(self._environment)
            except ConfigurationError as error:
                for text in error.problems:
                    self._problem((), text)
                return None
        return self._section(Gemini, "gemini", GEMINI_SECRETS)

    def _section(self, model: type[M], section: str, secrets: tuple[str, ...]) -> M | None:
        """A section with secrets of its own, which are variables and may be left out."""
        entry, before = self._data.get(section), len(self._problems)
        if entry is None:
            return None
        if isinstance(entry, dict):
            given = {name: entry[name] for name in secrets if entry.get(name) is not None}
            entry = entry | {name: self._password(value, (section, name), "secret") for name, value in given.items()}
        return self._checked(model, entry, (section,)) if len(self._problems) == before else None

    def _without_logins(self, resource: Any, position: int, credentials: dict[tuple[str, str], Credential]) -> Any:
        """The resource with user names for its logins, as the schema has it; the logins go to the credentials."""
        logins = resource.get("logins") if isinstance(resource, dict) else None
        if not isinstance(logins, dict):
            return resource
        usernames: dict[str, str] = {}
        for purpose, entry in logins.items():
            location = ("resources", position, "logins", str(purpose))
            checked = self._checked(_LoginEntry, entry, location)
            usernames[purpose] = "" if checked is None else checked.username
            if checked is not None:
                password = self._password(checked.password, (*location, "password"))
                credentials[str(resource.get("name")), str(purpose)] = Credential(username=checked.username, password=SecretStr(password))
        return resource | {"logins": usernames}

    def _refuse_without_project(self, inventory: Inventory) -> None:
        for position, resource in enumerate(inventory.resources):
            if resource.kind in CLOUD_KINDS and self._data.get("gcp") is None:
                remedy = 'add gcp: {project: my-project, service_account: "${GCP_SERVICE_ACCOUNT}"}'
                self._problem(("resources", position, "kind"), f"{resource.kind} is reached through a section `gcp`; {remedy}")

    def _refuse_two_passwords(self, inventory: Inventory, credentials: Mapping[tuple[str, str], Credential]) -> None:
        positions = {resource.name: position for position, resource in enumerate(inventory.resources)}
        for login, owner in block_owners(inventory).items():
            if login in credentials and owner in credentials and credentials[login] != credentials[owner]:
                location = ("resources", positions[login[0]], "logins", login[1], "password")
                self._problem(location, f"not the password that the same user has in {owner[0]}.logins.{owner[1]}; write the same variable")

    def _password(self, value: Any, location: Location, what: str = "password") -> str:
        reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if reference is not None:
            return self._variable(reference[1], location)
        parts = [str(part) for part in self._path(location).split(".") if part not in {"resources", "logins"}]
        variable = re.sub(r"[^A-Z0-9]+", "_", "_".join(parts).upper()).strip("_")
        self._problem(location, f"a {what} in plain text; write ${{{variable}}} here and put the {what} into that variable")
        return ""

    def _resolved_url(self, value: str, location: Location) -> SecretStr | None:
        whole = REFERENCE.fullmatch(value)
        if whole is None:
            try:
                url = make_url(value)
            except (ArgumentError, ValueError):
                url = None  # what is wrong with it is said below
            if url is not None and ("password" in url.query or (url.password and REFERENCE.fullmatch(str(url.password)) is None)):
                self._problem(location, "a password in plain text; write ${RECORDS_PASSWORD} in its place, and put it into that variable")
                return None
        encode: Callable[[str], str] = str if whole is not None else (lambda text: quote(text, safe=""))
        before = len(self._problems)
        resolved = REFERENCE.sub(lambda found: encode(self._variable(found[1], location)), value)
        if len(self._problems) > before:
            return None
        try:
            return SecretStr(records_url(resolved).render_as_string(hide_password=False))
        except ValueError as error:
            self._problem(location, str(error))
            return None

    def _variable(self, name: str, location: Location) -> str:
        value = self._environment.get(name, "")
        if not value:
            state = "is empty" if name in self._environment else "is not set"
            remedy = f"export {name}=..., or pass --env-file FILE with a line {name}=..."
            self._problem(location, f"the environment variable {name} {state}; {remedy}")
        return value

    def _refuse_misplaced(self, value: Any, location: Location) -> None:
        """References where none are replaced, and addresses that carry a login."""
        if isinstance(value, dict):
            for name, item in value.items():
                self._refuse_misplaced(item, (*location, str(name)))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                self._refuse_misplaced(item, (*location, position))
        elif isinstance(value, str) and location != ("records", "url") and location[-1:] != ("password",):
            if REFERENCE.search(value):
                self._problem(location, "a ${NAME} is replaced only where a secret belongs; write the value itself")
            if location[-1:] == ("address",) and "@" in value:
                self._problem(location, "an address holds no login; move it to `logins`")

    def _checked(self, model: type[M], value: Any, location: Location, also: tuple[str, ...] = ()) -> M | None:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            for detail in details:
                length = len(detail["loc"])
                if detail["type"] == "too_short" and any(one["loc"][:length] == detail["loc"] for one in details if one is not detail):
                    continue  # only because its items are wrong, which is told
                text = explained(detail, model, also)
                self._problem((*location, *within(detail)), text)
            return None

    def _problem(self, location: Location, text: str) -> None:
        known = location
        while known and known not in self._lines:
            known = known[:-1]
        line, path = self._lines.get(known, 1), self._path(location)
        self._problems.append((line, f"line {line}: {path}: {text}" if path else text))

    def _path(self, location: Location) -> str:
        """Such as resources.shop-db.logins.monitor: a resource by its name, where it has one."""
        parts = [str(part) for part in location]
        if len(location) > 1 and location[0] == "resources" and isinstance(location[1], int):
            resource = self._data["resources"][location[1]]
            name = resource.get("name") if isinstance(resource, dict) else None
            parts[1] = name if isinstance(name, str) and name else f"number {location[1] + 1}"
        return ".".join(parts)
