"""`python -m shop`: serve the shop until SIGTERM."""

from __future__ import annotations

import resource
import signal
import socket
import sys

import uvicorn

from shop.app import Shop
from shop.logs import configure_logging
from shop.settings import SettingsError, read_settings


class ShopServer(uvicorn.Server):
    """A server that lets go of all load before it waits for its requests to end."""

    def __init__(self, config: uvicorn.Config, shop: Shop) -> None:
        super().__init__(config)
        self._shop = shop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._shop.loads.close(seconds=0.5)
        await super().shutdown(sockets)


def _allow_many_files() -> None:
    """Use as many open files as the system lets this process have: a held request takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Serve; return the exit status."""
    try:
        settings = read_settings()
    except SettingsError as error:
        print(f"shop: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    _allow_many_files()
    # uvicorn stops gracefully and then raises the signal once more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    shop = Shop(settings)
    config = uvicorn.Config(
        shop.app,
        host=settings.listen_host,
        port=settings.listen_port,
        log_config=None,
        access_log=False,
        lifespan="on",
        loop="asyncio",
        http="h11",
        ws="none",
        # Longer than a proxy keeps its connections, so that it is never the shop that closes one in use.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    ShopServer(config, shop).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
