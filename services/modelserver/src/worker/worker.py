"""Runs one scikit-learn model for the model server, which talks to it over the socket at standard input.

A message is: length of the header (4 bytes), length of the payload (8), header (JSON), payload; little-endian. The first
message out says what the model is; after that, one message out for each one in.
"""

import json
import os
import pickle
import socket
import struct
import sys
import warnings

TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}
# What a model raises when it does not like its input.
CLIENT_FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def receive(sock, length):
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            sys.exit(0)
        view = view[count:]
    return data


def send(sock, header, payload=b""):
    text = json.dumps(header).encode()
    sock.sendall(struct.pack("<IQ", len(text), len(payload)) + text + payload)


def load(path):
    try:
        import joblib
    except ImportError:
        with open(path, "rb") as file:
            return pickle.load(file)
    return joblib.load(path)


def limit_memory(size):
    if size:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def describe(model):
    import numpy as np

    features = getattr(model, "n_features_in_", None)
    classes = getattr(model, "classes_", None)
    kind = datatype(classes.dtype) if isinstance(classes, np.ndarray) else "FP64"
    names = getattr(model, "feature_names_in_", None)
    return {
        "features": None if features is None else int(features),
        "names": None if names is None else [str(name) for name in names],
        "output": kind,
        "classes": None if classes is None or isinstance(classes, list) else len(classes),
        "proba": hasattr(model, "predict_proba"),
        "model": type(model).__name__,
    }


def datatype(dtype):
    for name, code in TYPES.items():
        if dtype == code:
            return name
    return "BYTES"


def tensor(spec, payload):
    import numpy as np

    kind, shape = spec["datatype"], spec["shape"]
    if kind == "BYTES":
        values, at = [], 0
        while at < len(payload):
            (length,) = struct.unpack_from("<I", payload, at)
            values.append(bytes(payload[at + 4 : at + 4 + length]).decode())
            at += 4 + length
        return np.array(values, dtype=object).reshape(shape)
    return np.frombuffer(payload, dtype=TYPES[kind]).reshape(shape)


def rows(header, payload):
    """The model's input: an array, texts, or a table."""
    if header["kind"] == "json":
        instances = json.loads(bytes(payload))
        first = instances[0] if instances else None
        if isinstance(first, dict):
            import pandas as pd

            if any(isinstance(value, (list, dict)) for value in first.values()):
                return pd.concat([pd.DataFrame(instance) for instance in instances], axis=0)
            return pd.DataFrame(instances)
        if isinstance(first, str):
            return instances
        import numpy as np

        return np.array(instances)
    tensors, at = [], 0
    for spec in header["inputs"]:
        tensors.append(tensor(spec, memoryview(payload)[at : at + spec["size"]]))
        at += spec["size"]
    if header["kind"] == "table":
        import pandas as pd

        table = {spec["name"]: values.reshape(-1) for spec, values in zip(header["inputs"], tensors)}
        return pd.DataFrame(table)
    return tensors[0]


def encode(name, result):
    import numpy as np

    values = np.asarray(result)
    kind = datatype(values.dtype)
    if kind == "BYTES":
        parts = []
        for value in values.reshape(-1).tolist():
            data = value if isinstance(value, bytes) else str(value).encode()
            parts.append(struct.pack("<I", len(data)) + data)
        data = b"".join(parts)
    else:
        data = np.ascontiguousarray(values).astype(TYPES[kind], copy=False).tobytes()
    return {"name": name, "datatype": kind, "shape": list(values.shape), "size": len(data)}, data


def answer(model, header, payload, proba):
    given = rows(header, payload)
    specs, parts = [], []
    for name in header.get("outputs") or ["output-0"]:
        if name == "predict_proba" or (name == "output-0" and proba):
            result = model.predict_proba(given)
        elif name in ("predict", "output-0"):
            result = model.predict(given)
        else:
            raise ValueError(f'output "{name}" is not one of output-0, predict, predict_proba')
        if hasattr(result, "columns"):
            for column in result.columns:
                spec, data = encode(str(column), result[column].to_numpy())
                specs.append(spec)
                parts.append(data)
            continue
        spec, data = encode(name, result)
        specs.append(spec)
        parts.append(data)
    return specs, b"".join(parts)


def main():
    path, memory, proba = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true"
    sock = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    # Names of features are not sent with arrays, which is no news.
    warnings.filterwarnings("ignore", message=".*does not have valid feature names.*")
    try:
        limit_memory(memory)
        model = load(path)
        hello = describe(model)
    except BaseException as error:
        send(sock, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    send(sock, hello)
    while True:
        head, body = struct.unpack("<IQ", receive(sock, 12))
        header = json.loads(receive(sock, head))
        payload = receive(sock, body)
        try:
            specs, data = answer(model, header, payload, proba)
        except Exception as error:
            client = isinstance(error, CLIENT_FAULTS)
            send(sock, {"error": f"{error}" if client else f"{type(error).__name__}: {error}", "client": client})
            continue
        send(sock, {"outputs": specs}, data)


main()
