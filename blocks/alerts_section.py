"""The section `alerts` of an inventory file. No Prefect."""

from pydantic import Field

from blocks.listener import Listener

LISTEN = "127.0.0.1:9095"


class Alerts(Listener):
    """Where alerts are received, and the token that whoever posts them has to show."""

    listen: str = Field(LISTEN, description="host:port; 127.0.0.1 is reached from the same machine only.")
