"""An OTLP collector that keeps what it is sent."""

import threading
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Span:
    """A span, with the service that sent it."""

    def __init__(self, service, span):
        self.service, self.name, self.raw = service, span.name, span
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.attributes = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.failed = span.status.code == 2

    def __repr__(self):
        return f"{self.service}: {self.name} ({self.id} below {self.parent or 'nothing'})"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self._spans, self._lock = [], threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def Export(self, request, context):  # noqa: N802, the name of the protocol
        with self._lock:
            for resource in request.resource_spans:
                known = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._spans += [Span(known.get("service.name"), span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self):
        with self._lock:
            return list(self._spans)

    def wait_for(self, wanted, timeout=30):
        """The first span that `wanted` accepts; spans are sent in batches."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for span in self.spans():
                if wanted(span):
                    return span
            time.sleep(0.1)
        raise AssertionError("not within {} s; there are:\n{}".format(timeout, "\n".join(map(str, self.spans()))[-6000:]))

    def stop(self):
        self._server.stop(None)
