"""Orders: a cart becomes rows in PostgreSQL, which nothing changes afterwards."""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.carts import Carts, check_customer
from shop.database import Connection, Database
from shop.errors import Conflict, NotFound, Unavailable, parse_body

logger = logging.getLogger(__name__)


class OrderRequest(BaseModel):
    """Whose cart to order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: str


class Orders:
    """Places and shows orders."""

    def __init__(self, database: Database, carts: Carts) -> None:
        self._database = database
        self._carts = carts

    def routes(self) -> list[Route]:
        """POST /orders and GET /orders/{id}."""
        return [Route("/orders", self.place, methods=["POST"]), Route("/orders/{number:int}", self.show)]

    async def place(self, request: Request) -> JSONResponse:
        """Order what is in the customer's cart, in one transaction, and empty the cart; 409 when it is empty."""
        customer = check_customer((await parse_body(request, OrderRequest)).customer)
        lines = await self._carts.read(customer)
        if not lines:
            raise Conflict(f"the cart of {customer} is empty")

        async def insert(connection: Connection) -> tuple[int, int]:
            cursor = await connection.execute("SELECT id, price_cents FROM products WHERE id = ANY(%s)", (list(lines),))
            prices: dict[int, int] = dict(await cursor.fetchall())
            if unknown := sorted(lines.keys() - prices.keys()):
                raise Conflict(f"the cart of {customer} names products that do not exist: {unknown}")
            total = sum(prices[product] * quantity for product, quantity in lines.items())
            await cursor.execute("INSERT INTO orders (customer, total_cents) VALUES (%s, %s) RETURNING id", (customer, total))
            row = await cursor.fetchone()
            assert row is not None, "INSERT ... RETURNING gives one row"
            await cursor.executemany(
                "INSERT INTO order_lines (order_id, product_id, quantity, price_cents) VALUES (%s, %s, %s, %s)",
                [(row[0], product, quantity, prices[product]) for product, quantity in lines.items()],
            )
            return row[0], total

        number, total_cents = await self._database.run(insert)
        try:
            await self._carts.write(customer, {})
        except Unavailable as error:
            logger.warning("order placed, but its cart stays: %s", error.message)
        return JSONResponse({"id": number, "customer": customer, "total_cents": total_cents}, status_code=201)

    async def show(self, request: Request) -> JSONResponse:
        """One order with its lines, or 404."""
        number: int = request.path_params["number"]

        async def select(connection: Connection) -> dict[str, object] | None:
            cursor = await connection.execute("SELECT id, customer, total_cents, placed_at FROM orders WHERE id = %s", (number,))
            row = await cursor.fetchone()
            if row is None:
                return None
            await cursor.execute(
                "SELECT product_id, quantity, price_cents FROM order_lines WHERE order_id = %s ORDER BY product_id", (row[0],)
            )
            lines = [
                {"product_id": product, "quantity": quantity, "price_cents": price} for product, quantity, price in await cursor.fetchall()
            ]
            return {
                "id": row[0],
                "customer": row[1],
                "total_cents": row[2],
                "placed_at": row[3].isoformat(),
                "lines": lines,
            }

        found = await self._database.run(select)
        if found is None:
            raise NotFound(f"no order {number}")
        return JSONResponse(found)
