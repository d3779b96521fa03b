"""Transports: frames in, frames out."""

from .base import Connector, OpenRequest, Transport, TransportEnded, find_connector

__all__ = ["Connector", "OpenRequest", "Transport", "TransportEnded", "find_connector"]
