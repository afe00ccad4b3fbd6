"""The safetensors format in a few lines of Python, to check ours against: `check FILE` reads, `make FILE` writes."""
import json
import struct
import sys

import numpy as np

DTYPES = {"F32": np.float32, "I64": np.int64, "U64": np.uint64}
TENSORS = {
    "conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 4 - 1,
    "bn1.num_batches_tracked": np.array(-5, dtype=np.int64),
    "seed": np.array([2**64 - 1], dtype=np.uint64),
    "empty": np.zeros((0, 3), dtype=np.float32),
}
METADATA = {"model": "cnn", "note": 'quotes " and ünïcödé'}


def check(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0, "the header is padded to 8 bytes"
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    assert header.pop("__metadata__") == METADATA
    assert header.keys() == TENSORS.keys(), header.keys()
    covered = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        dtype = np.dtype(DTYPES[tensor["dtype"]])
        assert begin == covered and begin % dtype.itemsize == 0, name
        values = np.frombuffer(data[begin:end], dtype).reshape(tensor["shape"])
        assert values.shape == TENSORS[name].shape and np.array_equal(values, TENSORS[name]), name
        covered = end
    assert covered == len(data)


def make(path):
    header, data = {"__metadata__": METADATA}, b""
    for name, values in TENSORS.items():
        dtype = next(name for name, type in DTYPES.items() if type == values.dtype)
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


{"check": check, "make": make}[sys.argv[1]](sys.argv[2])
