"""Every exception that the library raises on purpose.

All are `SlipstreamError`s. Each carries its facts as fields, and says in its message what happened, why, and what to do
next. Connect parameters, tokens, request headers, and payloads of pushes are secrets, and kept out of all errors.
"""

from . import base, channel, connection
from .base import *  # noqa: F403 - all that these export is public, and named there
from .channel import *  # noqa: F403
from .connection import *  # noqa: F403

__all__: list[str] = []
__all__ += base.__all__
__all__ += channel.__all__
__all__ += connection.__all__
