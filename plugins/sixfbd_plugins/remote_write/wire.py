"""Prometheus remote write 1.0 on the wire: protobuf, packed with snappy's block format. Knows nothing of where it goes.

https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sixfbd.plugin import Labels

HEADERS: Final[Mapping[str, str]] = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
STALE: Final[float] = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The value that says that a series has ended."""

Points: TypeAlias = Sequence[tuple[int, float]]
"""(unix milliseconds, value), ascending."""


def _write_request() -> type[Any]:
    """Return the class of prometheus.WriteRequest, of which only what is sent is declared."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sixfbd/remote_write.proto", package="prometheus", syntax="proto3")
    forms = {
        "Label": (("name", field.TYPE_STRING, ""), ("value", field.TYPE_STRING, "")),
        "Sample": (("value", field.TYPE_DOUBLE, ""), ("timestamp", field.TYPE_INT64, "")),
        "TimeSeries": (("labels", field.TYPE_MESSAGE, "Label"), ("samples", field.TYPE_MESSAGE, "Sample")),
        "WriteRequest": (("timeseries", field.TYPE_MESSAGE, "TimeSeries"),),
    }
    for name, fields in forms.items():
        message = file.message_type.add(name=name)
        for number, (key, kind, of) in enumerate(fields, 1):
            many = field.LABEL_REPEATED if of else field.LABEL_OPTIONAL
            made = message.field.add(name=key, number=number, type=kind, label=many)
            if of:
                made.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


WriteRequest: Final = _write_request()


def encode(series: Iterable[tuple[Labels, Points]]) -> bytes:
    """Return the body of a request. Blocks for as long as it computes: a few milliseconds for a thousand samples."""
    import cramjam  # not above: only who configures a `remote_write` check has to have it

    request = WriteRequest()
    for labels, points in series:
        one = request.timeseries.add()
        for name, value in labels:
            one.labels.add(name=name, value=value)
        for at_ms, number in points:
            one.samples.add(value=number, timestamp=at_ms)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
