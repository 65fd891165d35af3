"""What the environment configures, checked once at the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict


class SettingsError(Exception):
    """A variable is missing or malformed; names the variable and the remedy, never its value."""


@dataclass(frozen=True)
class Settings:
    """Addresses of the shop and of what it depends on; the two that may hold a password stay out of repr."""

    database_url: str = field(repr=False)
    cache_url: str = field(repr=False)
    listen_host: str
    listen_port: int
    public_url: str | None
    log_level: str


def split_listen(name: str, value: str) -> tuple[str, int]:
    """`host:port` as a pair; port 0 is left to the kernel."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{name}: set it to host:port, such as 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def check_http_url(name: str, value: str) -> str:
    """The URL without a trailing slash, when it is one the shop can call."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{name}: set it to a URL such as http://127.0.0.1:8080")
    return value.rstrip("/")


def _required(environment: Mapping[str, str], name: str, example: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set: set it to {example}")
    return value


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read SHOP_DATABASE_URL, SHOP_CACHE_URL, SHOP_LISTEN, SHOP_PUBLIC_URL and SHOP_LOG_LEVEL.

    Raises SettingsError.
    """
    database_url = _required(environment, "SHOP_DATABASE_URL", "postgresql://user@host:port/name")
    try:
        conninfo_to_dict(database_url)
        parsed = database_url.startswith(("postgresql://", "postgres://"))
    except psycopg.ProgrammingError:
        parsed = False
    if not parsed:
        raise SettingsError("SHOP_DATABASE_URL: set it to postgresql://user:password@host:port/name")
    cache_url = _required(environment, "SHOP_CACHE_URL", "redis://host:port/0")
    try:
        parts = urlsplit(cache_url)
        parsed = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parsed = False
    if not parsed:
        raise SettingsError("SHOP_CACHE_URL: set it to redis://:password@host:port/0")
    host, port = split_listen("SHOP_LISTEN", environment.get("SHOP_LISTEN", "127.0.0.1:8000"))
    public_url = environment.get("SHOP_PUBLIC_URL") or None
    log_level = environment.get("SHOP_LOG_LEVEL", "WARNING").upper()
    if log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SettingsError("SHOP_LOG_LEVEL: set it to DEBUG, INFO, WARNING or ERROR")
    return Settings(
        database_url=database_url,
        cache_url=cache_url,
        listen_host=host,
        listen_port=port,
        public_url=check_http_url("SHOP_PUBLIC_URL", public_url) if public_url else None,
        log_level=log_level,
    )
