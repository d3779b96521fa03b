"""Hypothesis strategies for everything that goes over a Phoenix connection, and for connections themselves.

All of them are functions that return a strategy. They shrink to the plainest values, and discard nothing. It needs the
extra `testing`.
"""

from ...errors.base import lacks

try:
    from . import frames as _frames, servers as _servers, states as _states, values as _values
    from .frames import *  # noqa: F403 - all that these modules export is public
    from .servers import *  # noqa: F403
    from .states import *  # noqa: F403
    from .values import *  # noqa: F403
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__: list[str] = []
__all__ += _frames.__all__
__all__ += _servers.__all__
__all__ += _states.__all__
__all__ += _values.__all__
