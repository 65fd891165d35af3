"""What every shape of the configuration is: plain pydantic, no Prefect."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class Model(BaseModel):
    """Immutable, and strict about field names: a typing error in a configuration is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
