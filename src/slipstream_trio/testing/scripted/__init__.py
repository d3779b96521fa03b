"""Servers that follow a script: plain data that says what happens to upgrades, joins and pushes, and when.

Strategies draw such scripts (`slipstream_trio.testing.strategies.server_scripts`). It needs the extra `testing`.
"""

from .script import Act, Deed, JoinFate, ServerScript
from .server import perform, scripted_server

__all__ = ["Act", "Deed", "JoinFate", "ServerScript", "perform", "scripted_server"]
