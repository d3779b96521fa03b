"""Names of secrets, and the text in their place: one rule for logs, recordings and reports; and echoes of secrets.

Servers and proxies like to repeat a request in their answers: a redirect shows the URL with its query, an error page
the header that it did not like, a close frame the token. Such texts go into exceptions, telemetry and recordings, so
the secrets of the request are taken out of them first, in all forms in which they may be repeated.
"""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

MASK: Final = "[redacted]"  # the text in place of a secret
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
    """Tell whether a name is that of a secret, by words such as `SECRETS`; False for other objects."""
    if not isinstance(name, str):
        return False
    letters = squeezed(name)
    return any(word in letters for word in words)


Redact = Callable[[str], str]  # takes secrets out of a text
_SHORTEST: Final = 4  # the fewest characters of a secret: a text whose every "1" is redacted would not be readable
_SHORTEST_PART: Final = 8  # likewise of a part of one: in a word of base64, or cut off where nothing tells that it was
_HEX: Final = "[0-9A-Fa-f]"
_BEGINS: Final = rf"(?:(?<![A-Za-z0-9])|(?<=%{_HEX}{{2}})|(?<=%25{_HEX}{{2}})|(?<=\\[a-z])|(?<=\\u{_HEX}{{4}}))"
"""Where a word begins: also behind an escape that ends with a letter or a digit."""

_ESCAPED: Final = re.compile(r"[%&\\]")
_CUT_OFF: Final = re.compile(r"\.\.\.|\u2026")
_WORD_GOES_ON: Final = re.compile(r"[A-Za-z0-9]")


def redactor(secrets: Iterable[str]) -> Redact:
    """Return a function that takes secrets out of a text, as whole words, and parts of them that were cut off."""
    # They are found as they are, and as pages, JSON, URLs and base64 have them, once or twice.
    plain = {secret for secret in secrets if len(secret) >= _SHORTEST}
    words = sorted({form for secret in plain for form in (secret, *_in_base64(secret.encode()))})
    parts = sorted({form for secret in plain for form in _inside_base64(secret)})
    heads = {head for word in words for head in (word[:_SHORTEST], word[:_SHORTEST].replace(" ", "+"))}

    def redact(text: str) -> str:
        if any(part in text for part in parts):
            text = re.sub("|".join(rf"[\w+/-]*{re.escape(part)}[\w+/=-]*" for part in parts), MASK, text)
        if words and (_ESCAPED.search(text) or any(head in text for head in heads)):  # the pattern is expensive to make
            begins = "|".join("".join(map(_character, head)) for head in sorted(heads))
            found = map(re.Match.start, re.finditer(f"{_BEGINS}(?={begins})", text))
            text = _masked(text, ((at, max(_end_of(word, text, at) for word in words)) for at in found))
        tails = map(re.Match.end, _CUT_OFF.finditer(text))
        return _masked(text, ((at, max((_end_of_tail(word, text, at) for word in words), default=at)) for at in tails))

    return redact


def _masked(text: str, secret: Iterable[tuple[int, int]]) -> str:
    """Return a text without what is secret: from here to there, in order; it may overlap, or be nothing."""
    pieces, start = [], 0
    for begin, end in secret:
        if end > begin >= start:
            pieces += [text[start:begin], MASK]
            start = end
    return "".join((*pieces, text[start:]))


def _end_of(word: str, text: str, at: int) -> int:
    """Return where a word ends that begins at a place, or a part of it that was cut off; the place itself if none."""
    # A short part counts only where the text says that it was cut off, or ends.
    size, end = _common(word, text, at)
    is_cut = end == len(text) or _CUT_OFF.match(text, end) is not None
    is_long = size == len(word) or size >= (_SHORTEST if is_cut else _SHORTEST_PART)
    return end if is_long and _WORD_GOES_ON.match(text, end) is None else at


def _end_of_tail(word: str, text: str, at: int) -> int:
    """Return where a word ends whose beginning was cut off; the place itself if there is none."""
    begin = word.find(text[at : at + _SHORTEST], 1)
    while 0 < begin <= len(word) - _SHORTEST_PART:
        size, end = _common(word[begin:], text, at)
        if size == len(word) - begin and _WORD_GOES_ON.match(text, end) is None:
            return end
        begin = word.find(text[at : at + _SHORTEST], begin + 1)
    return at


def _common(word: str, text: str, at: int) -> tuple[int, int]:
    """Return how many characters of a word a text has at a place, in whatever forms, and where they end."""
    for size, character in enumerate(word):
        found = re.compile(_character(character)).match(text, at)
        if found is None:
            return size, at
        at = found.end()
    return len(word), at


@cache
def _character(character: str) -> str:
    """Return a pattern of the forms that a character has in texts, pages, JSON and URLs, escaped up to three times."""
    # Without a bound, a text of nothing but backslashes would take a time that grows with the square of its length.
    is_plain = character.isascii() and character.isalnum()
    url = "".join(f"%(?:25){{0,2}}{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    units = character.encode("utf-16-be", "surrogatepass")
    code = r"\\{0,7}".join(f"u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    names = ""
    if not is_plain:
        from html.entities import html5  # a large table, of which few programs ever need anything

        names = "".join(f"|{name}" for name, its in html5.items() if its == character and name.endswith(";"))
    page = f"&(?:amp;){{0,2}}(?:#0{{0,6}}{ord(character)};|#x0{{0,6}}{ord(character):x};{names})"
    space = r"|\+|%(?:25){0,2}2b" if character == " " else ""
    escaped = rf"(?i:{page}|{url}|\\{{1,7}}{code}{space})"
    return (
        rf"(?:{character}|{escaped})" if is_plain else rf"(?:\\{{0,7}}(?:{escaped}|(?i:{code})|{re.escape(character)}))"
    )


def _in_base64(data: bytes) -> set[str]:
    encoded = b64encode(data).decode(), urlsafe_b64encode(data).decode()
    return {form.rstrip("=") for form in encoded}


def _inside_base64(secret: str) -> Iterator[str]:
    """Give what is the same in every base64 of a longer text that has a text in it, at each of three places."""
    for before in range(3):
        data = bytes(before) + secret.encode()
        first, last = -(-before * 8 // 6), len(data) * 8 // 6
        yield from (each[first:last] for each in _in_base64(data) if last - first >= _SHORTEST_PART)
