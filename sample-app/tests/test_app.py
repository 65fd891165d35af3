"""The shop as its customers see it, and what it leaves in its stores."""

from __future__ import annotations

import re

import psycopg
from shop_servers import PASSWORD, Cache, Postgres, RunningShop

from shop.seed import CART_CUSTOMERS, carts


def test_a_new_shop_has_products_orders_and_carts(fresh_shop: RunningShop, database_url: str, cache: Cache) -> None:
    fresh_shop.server.start()
    with psycopg.connect(database_url) as connection:
        counts = [
            connection.execute(query).fetchone()
            for query in (
                "SELECT count(*) FROM products",
                "SELECT count(DISTINCT customer) FROM orders",
                "SELECT count(*) FROM orders WHERE total_cents = (SELECT sum(quantity * price_cents) FROM order_lines WHERE id = order_id)",
            )
        ]
    assert counts == [(100,), (200,), (400,)]
    with cache.client() as client:
        stored = {name: client.hgetall(f"cart:{name}") for name in CART_CUSTOMERS}
        assert stored == {name: {str(item): str(n) for item, n in lines.items()} for name, lines in carts().items()}
        assert {client.ttl(f"cart:{name}") for name in CART_CUSTOMERS} == {-1}


def test_a_restart_seeds_nothing_twice(fresh_shop: RunningShop, database_url: str, cache: Cache) -> None:
    fresh_shop.server.start()
    assert fresh_shop.request("POST", "/orders", {"customer": CART_CUSTOMERS[0]}).status_code == 201
    fresh_shop.server.stop()
    fresh_shop.server.start()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (401,)
    with cache.client() as client:
        assert not client.exists(f"cart:{CART_CUSTOMERS[0]}")


def test_the_page_lists_the_products(shop: RunningShop) -> None:
    page = shop.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert len(re.findall(r"<li>", page.text)) == 100
    assert "Oak Chair" in page.text
    assert len(page.content) < 10_000


def test_products(shop: RunningShop) -> None:
    products = shop.get("/products").json()["products"]
    assert len(products) == 100
    assert shop.get("/products/7").json() == products[6]
    for number in (0, 101, 10**30):
        answer = shop.get(f"/products/{number}")
        assert (answer.status_code, answer.json()) == (404, {"error": {"message": f"no product {number}"}})


def test_a_cart_becomes_an_order(shop: RunningShop, postgres: Postgres, cache: Cache) -> None:
    lines = [{"product_id": 3, "quantity": 2}, {"product_id": 5, "quantity": 1}]
    assert shop.request("PUT", "/carts/ann", {"lines": lines}).json() == {"customer": "ann", "lines": lines}
    assert shop.get("/carts/ann").json()["lines"] == lines
    with cache.client() as client:
        assert client.hgetall("cart:ann") == {"3": "2", "5": "1"}
    placed = shop.request("POST", "/orders", {"customer": "ann"})
    assert placed.status_code == 201
    order = placed.json()
    with psycopg.connect(postgres.url("shop")) as connection:
        rows = connection.execute(
            "SELECT product_id, quantity, total_cents FROM orders JOIN order_lines ON order_id = id "
            "WHERE id = %s AND customer = 'ann' ORDER BY product_id",
            (order["id"],),
        ).fetchall()
    assert rows == [(3, 2, order["total_cents"]), (5, 1, order["total_cents"])]
    assert [line["product_id"] for line in shop.get(f"/orders/{order['id']}").json()["lines"]] == [3, 5]
    assert shop.get("/carts/ann").json()["lines"] == []
    assert shop.request("POST", "/orders", {"customer": "ann"}).status_code == 409
    assert shop.get("/orders/999999").status_code == 404


def test_an_order_of_an_unknown_product_changes_nothing(shop: RunningShop, postgres: Postgres) -> None:
    lines = [{"product_id": 3, "quantity": 1}, {"product_id": 4242, "quantity": 1}]
    shop.request("PUT", "/carts/bob", {"lines": lines})
    answer = shop.request("POST", "/orders", {"customer": "bob"})
    assert answer.status_code == 409
    assert "4242" in answer.json()["error"]["message"]
    with psycopg.connect(postgres.url("shop")) as connection:
        assert connection.execute("SELECT count(*) FROM orders WHERE customer = 'bob'").fetchone() == (0,)
    assert shop.get("/carts/bob").json()["lines"] == lines


def test_bad_input_names_the_field(shop: RunningShop) -> None:
    bad = [
        ("PUT", "/carts/ann", {"lines": [{"product_id": 3, "quantity": 0}]}, "lines.0.quantity"),
        ("PUT", "/carts/ann", {"lines": [], "coupon": "x"}, "coupon"),
        ("PUT", "/carts/ann", [], "body"),
        ("PUT", "/carts/Ann%20B", {"lines": []}, "customer"),
        ("POST", "/orders", {}, "customer"),
        ("POST", "/load/database/blocking", {}, "connections"),
        ("POST", "/load/database/blocking", {"connections": 501}, "connections"),
        ("POST", "/load/database/blocking", {"connections": 1, "seconds": 3601}, "seconds"),
        ("POST", "/load/cache/fill", {"percent": 0}, "percent"),
        ("POST", "/load/cache/fill", {"percent": 95, "key_bytes": 10}, "key_bytes"),
        ("POST", "/load/nginx/hold", {"connections": 2001}, "connections"),
        ("POST", "/load/nginx/hold", {"connections": 1, "seconds": "long"}, "seconds"),
        ("GET", "/reports/stream?seconds=nan", None, "seconds"),
    ]
    for method, path, body, field in bad:
        answer = shop.request(method, path, body)
        assert answer.status_code == 422, (path, body)
        assert answer.json()["error"]["message"].startswith(f"{field}: "), (path, body)


def test_no_password_in_an_answer_or_in_the_log(fresh_shop: RunningShop) -> None:
    wrong = "umbrella-71-teal"
    for name in ("SHOP_DATABASE_URL", "SHOP_CACHE_URL"):
        fresh_shop.server.environment[name] = fresh_shop.server.environment[name].replace(PASSWORD, wrong)
    fresh_shop.server.start()
    health = fresh_shop.get("/healthz")
    assert health.status_code == 503
    assert "password authentication failed" in health.json()["dependencies"]["database"]["error"]
    answers = [health, fresh_shop.get("/products"), fresh_shop.get("/carts/ann"), fresh_shop.get("/load")]
    seen = "".join(answer.text for answer in answers) + str(fresh_shop.log())
    assert wrong not in seen
    assert {line["level"] for line in fresh_shop.log()} >= {"ERROR"}
