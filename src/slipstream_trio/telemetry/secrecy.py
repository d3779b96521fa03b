"""Names of secrets, and the text in their place: one rule for logs, recordings and reports."""

from collections.abc import Collection
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

MASK: Final = "[redacted]"
"""The text in place of a secret."""

SECRETS: Final = frozenset({
    "accesskey", "apikey", "authorization", "cookie", "credential", "jwt", "passphrase", "passwd", "password",
    "privatekey", "secret", "sessionid", "signature", "signingkey", "token",
})  # fmt: skip
"""Parts of names of secrets, in lower case and without separators: `api_key` and `X-Api-Key` have "apikey"."""

SEPARATORS: Final = "_-. "
_SEPARATORS: Final = SEPARATORS.encode()
_LOWER: Final = bytes.maketrans(ascii_uppercase.encode(), ascii_lowercase.encode())


def squeezed(text: str) -> str:
    """Return a text in lower case and without what separates the words of a name."""
    if text.isascii():
        return text.encode().translate(_LOWER, _SEPARATORS).decode()
    return text.lower().translate(dict.fromkeys(map(ord, SEPARATORS)))


def is_secret(name: Any, words: Collection[str] = SECRETS) -> bool:
    """Tell whether a name is that of a secret, by words such as `SECRETS`; what is no string names none."""
    if not isinstance(name, str):
        return False
    letters = squeezed(name)
    return any(word in letters for word in words)
