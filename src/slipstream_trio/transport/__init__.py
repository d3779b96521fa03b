"""Transports: frames in, frames out."""

from ..errors import EndedBy
from .base import Connector, Frame, OpenRequest, StreamOpener, Transport, TransportEnded, find_connector

__all__ = [
    "Connector", "EndedBy", "Frame", "OpenRequest", "StreamOpener", "Transport", "TransportEnded", "find_connector",
]  # fmt: skip
