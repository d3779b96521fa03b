"""What the tests of presences say to a client, and how they write it."""

import json
from typing import Any

from tests.peers import World
from tests.recovery.support import settle

from slipstream_trio import PresenceChange


def metas(*refs: str) -> dict[str, Any]:
    """Return a presence with these refs."""
    return {"metas": [{"phx_ref": ref} for ref in refs]}


async def tell(there: World, event: str, payload: Any, topic: str = "room:1") -> None:
    """Let the server send a presence message of any content."""
    await there.connection.send_raw(json.dumps([None, None, topic, event, payload]))
    await settle()


async def state(there: World, **entries: Any) -> None:
    """Let the server say who is there."""
    await tell(there, "presence_state", entries)


async def diff(there: World, joins: Any = None, leaves: Any = None) -> None:
    """Let the server say who came and who went."""
    await tell(there, "presence_diff", {"joins": joins or {}, "leaves": leaves or {}})


def told(changes: list[PresenceChange]) -> list[tuple[str, str]]:
    """Return kinds and keys of changes."""
    return [(change.kind, change.key) for change in changes]
