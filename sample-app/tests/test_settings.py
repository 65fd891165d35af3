"""What the environment may say; errors name the variable and the remedy, and never repeat the value."""

from __future__ import annotations

import pytest
from shop_servers import PASSWORD

from shop.settings import SettingsError, read_settings

GOOD = {
    "SHOP_DATABASE_URL": f"postgresql://shop:{PASSWORD}@127.0.0.1:5432/shop",
    "SHOP_CACHE_URL": f"redis://:{PASSWORD}@127.0.0.1:6379/0",
}


def test_reads_what_is_set_and_has_defaults_for_the_rest() -> None:
    settings = read_settings({**GOOD, "SHOP_LISTEN": "[::1]:8010", "SHOP_PUBLIC_URL": "http://shop.test/"})
    assert (settings.listen_host, settings.listen_port) == ("::1", 8010)
    assert settings.public_url == "http://shop.test"
    assert settings.log_level == "WARNING"
    assert read_settings(GOOD).public_url is None


def test_the_settings_do_not_show_a_password() -> None:
    assert PASSWORD not in repr(read_settings(GOOD))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHOP_DATABASE_URL", ""),
        ("SHOP_DATABASE_URL", f"postgresql://shop:{PASSWORD}@[::/shop"),
        ("SHOP_DATABASE_URL", f"mysql://shop:{PASSWORD}@127.0.0.1/shop"),
        ("SHOP_CACHE_URL", ""),
        ("SHOP_CACHE_URL", f"redis://:{PASSWORD}@127.0.0.1:port/0"),
        ("SHOP_CACHE_URL", f"http://:{PASSWORD}@127.0.0.1"),
        ("SHOP_LISTEN", "8000"),
        ("SHOP_LISTEN", "127.0.0.1:70000"),
        ("SHOP_PUBLIC_URL", "127.0.0.1:8080"),
        ("SHOP_PUBLIC_URL", "http://127.0.0.1:http"),
        ("SHOP_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_setting_is_named_but_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}.*set it to") as caught:
        read_settings({**GOOD, name: value})
    assert PASSWORD not in str(caught.value)
