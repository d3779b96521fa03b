"""What the handling of an input did to the transport, for logs: the messages that were sent, and the close."""

from collections.abc import Mapping
from typing import Any, Final

from ..errors import ProtocolError
from ..protocol import Effect, SendFrame, Serializer, Transition, V1Serializer, V2Serializer

__all__ = ["effects_of"]

SERIALIZERS: Final[Mapping[str, Serializer]] = {each.name: each for each in (V1Serializer(), V2Serializer())}
"""Those whose frames can be read here; of what others made, only the size is known, as secrets could not be masked."""

LONGEST: Final = 65_536
"""Frames that have more characters are not read for the sake of a few that would be shown."""


def effects_of(transition: Transition) -> list[Any]:
    """Return the effects of an input as values that can be shown: messages as on the wire, `bytes`, and objects."""
    serializer = SERIALIZERS.get(transition.state.options.serializer)
    return [_shown(effect, serializer) for effect in transition.return_]


def _shown(effect: Effect, serializer: Serializer | None) -> Any:
    if not isinstance(effect, SendFrame):
        return {"close": effect.code, "reason": effect.reason}
    frame = effect.frame
    if isinstance(frame, bytes):
        return frame
    if serializer is None or len(frame) > LONGEST:
        return frame.encode(errors="surrogatepass")
    try:
        return serializer.decode(frame)
    except ProtocolError:  # a serializer of the user's that is called like one of ours
        return frame.encode(errors="surrogatepass")
