"""A user and its password, as clients take them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Login:
    """A user and its password; the password is kept out of every representation."""

    username: str
    password: str = field(repr=False)
