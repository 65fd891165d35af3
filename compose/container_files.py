"""What is mounted into the lab's containers: each server's configuration, and the passwords that it is given.

A server in a container has a user id of its own, so what it reads is readable by everybody. On the host all of it lies below the lab's
directory, which only its owner may enter.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from compose.balancer import balancer_configuration
from compose.broker import DURABLE, broker_settings, broker_url
from compose.cache import CONFIGURATION as CACHE_CONFIGURATION
from compose.container_description import ContainerLab
from compose.control_plane import SERVER_SETTINGS
from compose.database import OWNER, PARAMETERS, ROLES
from compose.description import write_private
from compose.web import write_web_files

DATABASE_CONFIGURATION = """\
# Written at each `up` of the lab.
data_directory = '/var/lib/postgresql/volume/data'
hba_file = '/etc/shop-database/pg_hba.conf'
listen_addresses = '*'
max_connections = 100
superuser_reserved_connections = 3
shared_buffers = 64MB
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
cluster_name = 'shop'
"""
# The superuser `postgres` gets in from within the container alone; over the network it has no password.
DATABASE_ACCESS = """\
# TYPE DATABASE USER ADDRESS METHOD
local all postgres peer
host all all all scram-sha-256
"""
# Debian's is PostgreSQL 15: what came later can neither be granted nor set.
LATER_ROLES = ("pg_use_reserved_connections", "pg_maintain")
LATER_PARAMETERS = frozenset({"reserved_connections", "transaction_timeout"})

PREFECT_ROLE = "CREATE ROLE {username} LOGIN PASSWORD '{password}';\n"
PREFECT_OWNER = "ALTER DATABASE postgres RENAME TO {username};\nALTER DATABASE {username} OWNER TO {username};\n"
MODEL_VARIABLES = ("GEMINI_API_KEY", "GEMINI_MODEL", "GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")

CACHE_HEALTH = "user health reset on nopass +ping\n"

API_REPLICAS = ("prefect-api:4200", "prefect-api-replica:4200")
BROKER_CONFIGURATION = f"bind *\nport 6379\ndir /var/lib/redis\n{DURABLE}{CACHE_HEALTH}"
BALANCER_MAIN = "user www-data;\npid /run/nginx.pid;\nerror_log /dev/stderr notice;"

WEB_CONFIGURATION = """\
# Written at each `up` of the lab.
user www-data;
worker_processes 1;
worker_shutdown_timeout 5s;
pid /run/nginx.pid;
error_log /dev/stderr notice;

events {
    worker_connections 256;
}

http {
    access_log off;
    default_type text/plain;
    proxy_http_version 1.1;
    proxy_connect_timeout 2s;

    upstream shop {
        server shop:8000;
    }

    server {
        listen 80;
        listen 443 ssl;
        ssl_certificate tls/shop.crt;
        ssl_certificate_key tls/shop.key;
        location / {
            proxy_pass http://shop;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
        location /static/ {
            root /etc/nginx/html;
        }
        location = /nginx/alive {
            return 204;
        }
    }
}
"""


def write_files(lab: ContainerLab, database_volume: str) -> None:
    """Write configuration and passwords of every service, and the variables of compose.yaml.

    `database_volume` is where the engine keeps the database's data.
    """
    given = ("database", "app", "prefect-database", "prefect-server", "worker", "broker", "scale-server", "scale-worker")
    for directory in (*map(lab.config, ("database", "cache", "web", "balancer")), *map(lab.secrets, given)):
        directory.mkdir(parents=True, exist_ok=True)
    # Redis replaces its own configuration, and has a user id of its own.
    lab.config("cache").chmod(0o777)
    _write(lab.config("database") / "postgresql.conf", DATABASE_CONFIGURATION)
    _write(lab.config("database") / "pg_hba.conf", DATABASE_ACCESS)
    _write(lab.secrets("database") / "roles.sql", _roles(lab))
    _write(lab.secrets("database") / "owner.sql", _format(OWNER, lab))
    _write(lab.cache.config_path, _cache_configuration(lab))
    _write(lab.web.config_path, WEB_CONFIGURATION)
    write_web_files(lab)
    _write(lab.secrets("app") / "logins.env", _lines(_addresses(lab)))
    prefect = lab.prefect.database
    _write(lab.secrets("prefect-database") / "roles.sql", PREFECT_ROLE.format(username=prefect.username, password=prefect.password))
    _write(lab.secrets("prefect-database") / "owner.sql", PREFECT_OWNER.format(username=prefect.username))
    database_url = f"postgresql+asyncpg://{prefect.username}:{prefect.password}@prefect-database:5432/{prefect.username}"
    server = {**SERVER_SETTINGS, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url}
    _write(lab.secrets("prefect-server") / "logins.env", _lines(server))
    # The key of a model is given on when the inventory is saved.
    model = {name: os.environ[name] for name in MODEL_VARIABLES if os.environ.get(name)}
    _write(lab.secrets("worker") / "logins.env", _lines(model))
    _write_scale_files(lab, server, model)
    write_private(
        lab.compose_environment, "".join(f"{name}={value}\n" for name, value in compose_environment(lab, database_volume).items())
    )


def _write_scale_files(lab: ContainerLab, server: Mapping[str, str], model: Mapping[str, str]) -> None:
    """What the parts of the profile `scale` are given besides: each other's logins, and the auth string of everybody."""
    scale = lab.prefect.scale
    auth = f"{scale.auth.username}:{scale.auth.password}"
    _write(lab.secrets("broker") / "redis.conf", BROKER_CONFIGURATION.format(**scale.broker.model_dump()))
    parts = {**server, **broker_settings(broker_url("prefect-broker", 6379, scale.broker)), "PREFECT_SERVER_API_AUTH_STRING": auth}
    _write(lab.secrets("scale-server") / "logins.env", _lines(parts))
    _write(lab.secrets("scale-worker") / "logins.env", _lines({**model, "PREFECT_API_AUTH_STRING": auth}))
    _write(lab.config("balancer") / "nginx.conf", balancer_configuration("4200", API_REPLICAS, BALANCER_MAIN))


def compose_environment(lab: ContainerLab, database_volume: str) -> dict[str, str]:
    """The variables of compose.yaml."""
    return {
        "LAB_PROJECT": lab.project,
        "LAB_DIRECTORY": str(lab.directory),
        "DATABASE_PORT": str(lab.database.port),
        "CACHE_PORT": str(lab.cache.port),
        "WEB_PORT": str(lab.web.port),
        "WEB_TLS_PORT": str(lab.web.tls_port),
        "APP_PORT": str(lab.app.port),
        "TRAFFIC_PORT": str(lab.traffic.port),
        "PREFECT_PORT": str(lab.prefect.port),
        "WORKER_PORT": str(lab.prefect.worker_port),
        "SECOND_WORKER_PORT": str(lab.prefect.scale.worker_port),
        "ENGINE_SOCKET": str(lab.control),
        "COMPOSE_DIRECTORY": str(Path(__file__).parent),
        "DATABASE_VOLUME": database_volume,
    }


def _lines(variables: Mapping[str, str]) -> str:
    """As a shell reads them."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def _write(path: Path, text: str) -> None:
    """Replace a file at once: it may belong to a container's user, in a directory that is everybody's."""
    write_private(path, text)
    path.chmod(0o644)


def _roles(lab: ContainerLab) -> str:
    text = ROLES
    for role in LATER_ROLES:
        text = text.replace(f"{role}, ", "").replace(f", {role}", "")
    return _format(text, lab)


def _format(text: str, lab: ContainerLab) -> str:
    logins = lab.database.logins
    return text.format(
        **{purpose: login.username for purpose, login in logins.items()},
        **{f"{purpose}_password": login.password for purpose, login in logins.items()},
        dbname=lab.database.dbname,
        parameters=", ".join(name for name in PARAMETERS if name not in LATER_PARAMETERS),
    )


def _cache_configuration(lab: ContainerLab) -> str:
    logins = lab.cache.logins
    text = CACHE_CONFIGURATION.format(
        host="*",
        port=6379,
        directory="/var/lib/redis",
        monitor=logins["monitor"].username,
        monitor_password=logins["monitor"].password,
        application=logins["application"].username,
        application_password=logins["application"].password,
    )
    return text + CACHE_HEALTH


def _addresses(lab: ContainerLab) -> dict[str, str]:
    """The shop's servers as its containers reach them, with the passwords."""
    database, cache = lab.database.logins["application"], lab.cache.logins["application"]
    return {
        "SHOP_DATABASE_URL": f"postgresql://{database.username}:{database.password}@database:5432/{lab.database.dbname}",
        "SHOP_CACHE_URL": f"redis://{cache.username}:{cache.password}@cache:6379/0",
    }
