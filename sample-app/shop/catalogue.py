"""The products: a page from a snapshot that outlives an outage, and an API that asks the database."""

from __future__ import annotations

import asyncio
import time
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from shop.database import Connection, Database
from shop.errors import NotFound, Unavailable, log_unavailable

REFRESH_SECONDS = 3.0

Product = tuple[int, str, int]


async def _select_products(connection: Connection) -> list[Product]:
    cursor = await connection.execute("SELECT id, name, price_cents FROM products ORDER BY id")
    return [(number, name, price) for number, name, price in await cursor.fetchall()]


def _as_json(product: Product) -> dict[str, object]:
    number, name, price_cents = product
    return {"id": number, "name": name, "price_cents": price_cents}


def render_page(products: list[Product]) -> str:
    """The shop's front page."""
    rows = "\n".join(f"<li>{escape(name)} <b>{price / 100:.2f}</b></li>" for _, name, price in products)
    body = f"<ul>\n{rows}\n</ul>" if products else "<p>The shelves are being filled.</p>"
    head = '<head><meta charset="utf-8"><title>Shop</title></head>'
    return f'<!doctype html>\n<html lang="en">{head}\n<body><h1>Shop</h1>\n{body}\n</body></html>\n'


class Catalogue:
    """Products as a page and as JSON."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._page = render_page([])
        self._tried = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """GET /, /products and /products/{id}."""
        return [
            Route("/", self.page),
            Route("/products", self.products),
            Route("/products/{number:int}", self.product),
        ]

    async def refresh(self) -> None:
        """Render the page anew from the database; keep the old one when it is away."""
        try:
            self._page = render_page(await self._database.run(_select_products))
        except Unavailable as error:
            log_unavailable(error.dependency, error.message)

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait({self._refreshing}, timeout=0.2)

    async def page(self, _request: Request) -> HTMLResponse:
        """The page as it was at most a few seconds ago; asks for a new one in the background."""
        now = time.monotonic()
        if now - self._tried >= REFRESH_SECONDS and (self._refreshing is None or self._refreshing.done()):
            self._tried = now
            self._refreshing = asyncio.create_task(self.refresh())
        return HTMLResponse(self._page)

    async def products(self, _request: Request) -> JSONResponse:
        """Every product."""
        found = await self._database.run(_select_products)
        return JSONResponse({"products": [_as_json(product) for product in found]})

    async def product(self, request: Request) -> JSONResponse:
        """One product, or 404."""
        number: int = request.path_params["number"]

        async def select(connection: Connection) -> Product | None:
            query = "SELECT id, name, price_cents FROM products WHERE id = %s"
            row = await (await connection.execute(query, (number,))).fetchone()
            return None if row is None else (row[0], row[1], row[2])

        found = await self._database.run(select)
        if found is None:
            raise NotFound(f"no product {number}")
        return JSONResponse(_as_json(found))
