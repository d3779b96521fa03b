"""Transports: frames in, frames out."""

from .base import Connector, EndedBy, OpenRequest, StreamOpener, Transport, TransportEnded, find_connector

__all__ = ["Connector", "EndedBy", "OpenRequest", "StreamOpener", "Transport", "TransportEnded", "find_connector"]
