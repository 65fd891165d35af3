"""Carts: one Redis hash a customer, product -> quantity."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.cache import answering
from shop.errors import Invalid, parse_body

_CUSTOMER = re.compile(r"[a-z0-9-]{1,40}")


class CartLine(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product_id: int = Field(ge=1, le=1_000_000)
    quantity: int = Field(ge=1, le=99)


class CartContents(BaseModel):
    """A whole cart, which replaces the one before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lines: list[CartLine] = Field(max_length=50)


def check_customer(customer: str) -> str:
    """The name, when it is one. Raises Invalid."""
    if not _CUSTOMER.fullmatch(customer):
        raise Invalid("customer: use 1 to 40 lower-case letters, digits and hyphens")
    return customer


class Carts:
    """Reads and writes carts. Every method raises Unavailable when the cache fails."""

    def __init__(self, cache: Redis) -> None:
        self._cache = cache

    def routes(self) -> list[Route]:
        """GET and PUT /carts/{customer}."""
        return [Route("/carts/{customer}", self.show), Route("/carts/{customer}", self.replace, methods=["PUT"])]

    async def read(self, customer: str) -> dict[int, int]:
        """Product -> quantity; empty when the customer has no cart."""
        async with answering():
            lines = await self._cache.hgetall(f"cart:{customer}")
        return {int(product): int(quantity) for product, quantity in lines.items()}

    async def write(self, customer: str, lines: dict[int, int]) -> None:
        """Put `lines` in the place of the cart, or leave it untouched."""
        key = f"cart:{customer}"
        async with answering(), self._cache.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if lines:
                pipeline.hset(key, mapping={str(product): quantity for product, quantity in lines.items()})
            await pipeline.execute()

    async def show(self, request: Request) -> JSONResponse:
        """The cart of a customer."""
        customer = check_customer(request.path_params["customer"])
        return self._answer(customer, await self.read(customer))

    async def replace(self, request: Request) -> JSONResponse:
        """Write the whole cart of a customer."""
        customer = check_customer(request.path_params["customer"])
        contents = await parse_body(request, CartContents)
        lines = {line.product_id: line.quantity for line in contents.lines}
        await self.write(customer, lines)
        return self._answer(customer, lines)

    @staticmethod
    def _answer(customer: str, lines: dict[int, int]) -> JSONResponse:
        entries = [{"product_id": product, "quantity": quantity} for product, quantity in sorted(lines.items())]
        return JSONResponse({"customer": customer, "lines": entries})
