"""A running simulator as its users find it: DIR/simulator.json, which the simulator writes when it is ready (mode 0600)."""

from pathlib import Path

from pydantic import Field, ValidationError

from compose.description import HOST, LabError, Login, Model, Purpose, write_private


class PlaneAddress(Model):
    """Where a real server listens, and who may log in."""

    host: str
    port: int
    logins: dict[Purpose, Login] = Field(
        default_factory=dict, description="A machine's password is its private key; Memorystore has no user."
    )
    host_key: str | None = Field(None, description="Public host key (machines).")
    database: str | None = Field(None, description="Name of the database (Cloud SQL).")


class CloudDescription(Model):
    """Addresses, keys and logins of one simulator."""

    project: str
    proxy_url: str = Field(description="The CONNECT proxy, http://127.0.0.1:PORT.")
    admin_url: str = Field(description="The admin API: fault knobs, violations, mutations received.")
    admin_token: str = Field(repr=False)
    metadata_host: str = Field(description="The metadata server, host:port, for GCE_METADATA_HOST and GCE_METADATA_IP.")
    ca_path: Path = Field(description="Certificate of the authority that issued *.googleapis.com.")
    key_paths: dict[str, Path] = Field(description="Identity -> its service account key, a JSON file.")
    planes: dict[str, PlaneAddress] = Field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What points a process's Google client libraries at the simulator: nothing of evenkeel's own settings changes."""
        authority = str(self.ca_path)
        return {
            "https_proxy": self.proxy_url,
            "no_proxy": f"{HOST},localhost",
            "REQUESTS_CA_BUNDLE": authority,
            "HTTPLIB2_CA_CERTS": authority,
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": authority,
        }


def cloud_description_path(directory: Path) -> Path:
    """Where a running simulator is described."""
    return directory / "simulator.json"


def save_cloud(directory: Path, description: CloudDescription) -> None:
    """Write it."""
    write_private(cloud_description_path(directory), description.model_dump_json(indent=2) + "\n")


def load_cloud(directory: Path) -> CloudDescription:
    """The directory's simulator; LabError where none was started."""
    path = cloud_description_path(directory)
    try:
        return CloudDescription.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(
            f"{directory}: no simulator runs here; start it with `python -m compose.google_cloud --directory {directory}`"
        ) from error
    except ValidationError as error:
        raise LabError(f"{path}: not a description of a simulator; remove it and start again") from error
