"""Transports: frames in, frames out."""

from .base import Connector, EndedBy, Frame, OpenRequest, StreamOpener, Transport, TransportEnded, find_connector

__all__ = [
    "Connector", "EndedBy", "Frame", "OpenRequest", "StreamOpener", "Transport", "TransportEnded", "find_connector",
]  # fmt: skip
