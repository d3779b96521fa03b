"""A collector: takes spans by OTLP over HTTP on loopback, and decodes their protobuf."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

ABSENT = "needs the extra `otlp`"


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing it waits for them


class Collector:
    """What was received: spans as protobuf messages, and the headers of the requests."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.headers: list[Any] = []
        self.requests = 0
        self.url = ""

    def take(self, path: str, headers: Any, body: bytes) -> bytes:
        """Take in a request; returns the answer's body."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )

        assert path == "/v1/traces"
        assert headers["content-type"] == "application/x-protobuf"
        self.requests += 1
        self.headers.append(headers)
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if headers["content-encoding"] == "gzip" else body)
        for resource_spans in request.resource_spans:
            resource = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                assert scope_spans.scope.name == "slipstream_trio"
                self.spans.extend(scope_spans.spans)
                self.resources.extend([resource] * len(scope_spans.spans))
        return bytes(ExportTraceServiceResponse().SerializeToString())

    def ids(self) -> dict[str, tuple[str, str]]:
        """Return span_id to trace_id and parent, in hex digits."""
        return {span.span_id.hex(): (span.trace_id.hex(), span.parent_span_id.hex()) for span in self.spans}

    def named(self, name: str) -> Any:
        """Return the one span of a name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """Run a collector, which answers with a status."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=ABSENT)
    collector = Collector(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = collector.take(self.path, self.headers, body) if status == 200 else b""
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
