"""What is secret never stays; what is not, does."""

import base64
import json
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tasks.core.redaction import MASK, MIN_SECRET_LENGTH, Redactor
from tasks.redacting import vendor_patterns

PATTERNS = vendor_patterns()
RULES = Redactor(patterns=PATTERNS)

secrets = st.text(st.characters(codec="utf-8"), min_size=MIN_SECRET_LENGTH, max_size=24).filter(
    lambda one: one not in MASK and not set(one) & set(MASK[0] + MASK[-1])
)
texts = st.text(max_size=40) | st.sampled_from(
    ["password=", '{"token": "', "redis://u:", "@host", "Authorization: Basic ", MASK, "\\", "\\u00e9", "%41", "'", '"', "key: ", "\n"]
)
ENCODINGS: dict[str, Any] = {
    "plain": str,
    "url": lambda text: quote(text, safe=""),
    "url, lower case": lambda text: quote(text, safe="").lower() if text.isascii() and text.lower() == text else quote(text),
    "form": quote_plus,
    "json": lambda text: json.dumps(text)[1:-1],
    "json of json": lambda text: json.dumps(json.dumps(text, ensure_ascii=False))[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a URL's kind": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
}


@given(secret=secrets, before=texts, after=texts, encoding=st.sampled_from(sorted(ENCODINGS)))
def test_a_known_secret_never_survives(secret: str, before: str, after: str, encoding: str) -> None:
    encoded = ENCODINGS[encoding](secret)
    # Where it stands in there already, or a neighbour completes an encoding, there is nothing to tell apart.
    assume(encoded not in before and encoded not in after and encoded not in MASK)
    redactor = Redactor([secret, "another-secret"], PATTERNS)
    assert encoded not in redactor.text(f"{before}{encoded}{after}")
    assert encoded not in redactor.known(f"{before}{encoded}{after}")


@given(user=st.text(st.characters(codec="ascii", exclude_characters=":"), max_size=9), secret=secrets)
def test_nor_in_the_base64_of_a_longer_text(user: str, secret: str) -> None:
    encoded = base64.b64encode(f"{user}:{secret}@".encode()).decode()
    assert Redactor([secret]).known(f"sent {encoded} to it") == f"sent {MASK} to it"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def with_secret(value: Any, secret: str) -> Any:
    if isinstance(value, dict):
        return {f"{key}{secret}": with_secret(item, secret) for key, item in value.items()}
    if isinstance(value, list):
        return [with_secret(item, secret) for item in value]
    return f"{value}{secret}" if isinstance(value, str) else value


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(item) for item in value.values()]
    return [shape(item) for item in value] if isinstance(value, list) else None


@given(value=json_values, secret=secrets)
def test_nor_in_nested_values_whose_shape_stays(value: Any, secret: str) -> None:
    redactor = Redactor([secret])
    redacted = redactor.value(with_secret(value, secret))
    assert secret not in str(list(strings(redacted)))
    assert all(secret not in text for text in strings(redacted))
    assert shape(redacted) == shape(value)
    assert redactor.value(redacted) == redacted


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@given(parts=st.lists(texts, max_size=8), secret=secrets)
@example(parts=["password=", MASK, "tail and more"], secret="unused-here")
def test_redacting_twice_changes_nothing(parts: list[str], secret: str) -> None:
    redactor = Redactor([secret], PATTERNS)
    once = redactor.text("".join(parts))
    assert redactor.text(once) == once


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password=hunter2 host=db", "password=[masked] host=db"),
        ("postgresql: dbname=shop PGPASSWORD=hunter2", "postgresql: dbname=shop PGPASSWORD=[masked]"),
        ('{"password": "a\\"b", "port": 1}', '{"password": "[masked]", "port": 1}'),
        ('{\\"password\\": \\"abc\\", \\"port\\": 1}', '{\\"password\\": \\"[masked]\\", \\"port\\": 1}'),
        ("db:\n  password: my long pass\n  port: 1", "db:\n  password: [masked]\n  port: 1"),
        ("{'api_key': 'abc', 'port': 1}", "{'api_key': '[masked]', 'port': 1}"),
        ("apiKey=abc&page=1", "apiKey=[masked]&page=1"),
        ("client_secret: abc", "client_secret: [masked]"),
        ('password="cut off', 'password="[masked]'),
        ("PASSWORD: 12345", "PASSWORD: [masked]"),
        ("token=a1b2c3d4", "token=[masked]"),
        ("password=a(b)c, next", "password=[masked], next"),
        ("connect(password=abc)", "connect(password=[masked])"),
        ("//registry.example/:_authToken=abc", "//registry.example/:_authToken=[masked]"),
        ("redis://shop:12345@127.0.0.1:6379/0", "redis://shop:[masked]@127.0.0.1:6379/0"),
        ("redis://:p@ss@127.0.0.1:6379/0", "redis://:[masked]@127.0.0.1:6379/0"),
        ("https://abcdefghijklmnopqrstuvwx@git.example/", "https://[masked]@git.example/"),
        ("GET /v1?key=abcdefghijklmnopqrstuvwx&x=1", "GET /v1?key=[masked]&x=1"),
        ("Authorization: Bearer abc.def", "Authorization: [masked]"),
        ("{'Authorization': 'Basic dTpw', 'Accept': '*/*'}", "{'Authorization': '[masked]', 'Accept': '*/*'}"),
        ("sent Bearer abc123def456", "sent Bearer [masked]"),
        ("Cookie: a=b; c=d\nAccept: */*", "Cookie: [masked]\nAccept: */*"),
        ("x-goog-api-key: abc", "x-goog-api-key: [masked]"),
        ("requirepass foobar", "requirepass [masked]"),
        ("user shop on >foobar ~* +@all", "user shop on >[masked] ~* +@all"),
        ("ALTER ROLE shop PASSWORD 'it''s' VALID UNTIL 'x'", "ALTER ROLE shop PASSWORD '[masked]' VALID UNTIL 'x'"),
        ("tool --token abc --port 1", "tool --token [masked] --port 1"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", "a\n[masked]\nb"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIE and cut", "[masked]"),
        ('found "AKIAIOSFODNN7EXAMPLE" there', 'found "[masked]" there'),
        ("AIzaSyA-1234567890123456789012345678901", "[masked]"),
        ("ghp_" + "a1" * 18, "[masked]"),
        ("xoxb-123-456-abc", "[masked]"),
        ("eyJhbGciOi.eyJzdWIiOi.c2ln", "[masked]"),
    ],
)
def test_rules(text: str, redacted: str) -> None:
    assert RULES.text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "tokens 12",
        "max_tokens=100, token: 12",
        "password_encryption scram-sha-256",
        "password_encryption=scram-sha-256; auth_delay.milliseconds=5",
        "keys: 4000",
        "cache_key: page:12",
        "primary key: orders_pkey",
        'FATAL:  password authentication failed for user "shop"',
        "password: null, token: none, secret: false",
        "password=$1 AND token = ?",
        "password=${SHOP_DB_PASSWORD}",
        "PWD=/var/lib/postgresql",
        "bypass=3, compass: north",
        "basic authentication, bearer authentication",
        "http://127.0.0.1:8080/path@x?key=page:1",
        "http://127.0.0.1:8080/ and user@example.org",
        "SELECT * FROM orders WHERE id = ANY($1) AND note = ?",
        "connect() failed (111: Connection refused) while connecting to upstream, client: 10.0.0.1",
        "550e8400-e29b-41d4-a716-446655440000 deadbeefdeadbeef 2026-01-01T00:00:00.000Z",
        "/srv/lab/nginx/nginx.conf",
        "proxy_pass: http://127.0.0.1:3000",
        "[masked]",
    ],
)
def test_ordinary_words_and_figures_stay(text: str) -> None:
    assert RULES.text(text) == text


def test_values_under_a_secret_key() -> None:
    given_values = {
        "password": "abc",
        "db_password": 1234,
        "token": 12,
        "nested": {"clientSecret": {"current": ["a", 77.5, None, True]}},
        "error: password": 3,
        "password_encryption": "scram-sha-256",
        "keys": 4000,
        "proxy_pass": "http://127.0.0.1:3000",
    }
    assert RULES.value(given_values) == {
        "password": MASK,
        "db_password": MASK,
        "token": 12,
        "nested": {"clientSecret": {"current": [MASK, MASK, None, True]}},
        "error: password": 3,
        "password_encryption": "scram-sha-256",
        "keys": 4000,
        "proxy_pass": "http://127.0.0.1:3000",
    }


def test_keys_that_differ_in_secrets_alone_stay_two() -> None:
    assert Redactor(["secret-one", "secret-two"]).value({"secret-one": 1, "secret-two": 2}) == {MASK: 1, f"{MASK} (2)": 2}


def test_a_short_secret_is_no_reason_to_mask_words() -> None:
    assert Redactor(["shop"]).text("the shop is open") == "the shop is open"


def test_secrets_do_not_show_in_the_representation() -> None:
    assert "hunter2" not in repr(Redactor(["hunter2"]))


@pytest.mark.parametrize(
    "piece", ["password", "://", "://a:", '"', "'", "\\", "a.", "-----BEGIN PRIVATE KEY-----", "user x on ", "key=", "eyJ"]
)
def test_hostile_texts_cost_no_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    started = time.perf_counter()
    Redactor([f"secret-{number}-value" for number in range(50)], PATTERNS).text(text)
    assert time.perf_counter() - started < 2
