"""Transports: frames in, frames out."""

from .base import Connector, EndedBy, OpenRequest, Transport, TransportEnded, find_connector

__all__ = ["Connector", "EndedBy", "OpenRequest", "Transport", "TransportEnded", "find_connector"]
