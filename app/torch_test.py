#!/usr/bin/python3
"""A checkpoint of `equinorm train` loaded into the same net in PyTorch gives the same logits.

    torch_test.py EQUINORM MODEL NORM BENCH_DIRECTORY

Prints "skipped" and exits with 77 where there is no PyTorch.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)


def write_idx(path, array):
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes())


def read_safetensors(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    dtypes = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors, metadata


def main():
    program, model_name, norm, bench_directory = sys.argv[1:]
    sys.path.insert(0, bench_directory)
    from torch_step import build_model

    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        images = random.integers(0, 256, (320, 28, 28), dtype=np.uint8)
        labels = (np.arange(320) % 10).astype(np.uint8)
        for part, begin, end in (("train", 0, 256), ("t10k", 256, 320)):
            write_idx(directory / f"{part}-images-idx3-ubyte", images[begin:end])
            write_idx(directory / f"{part}-labels-idx1-ubyte", labels[begin:end])
        net, logits = directory / "net.safetensors", directory / "logits.safetensors"
        subprocess.run([program, "train", "--model", model_name, "--norm", norm, "--data", directory, "--batch", "32",
                        "--epochs", "2", "--lr", "0.05", "--threads", "1", "--save", net], check=True)
        subprocess.run([program, "eval", net, "--data", directory, "--logits", logits], check=True)
        state, metadata = read_safetensors(net)
        ours = read_safetensors(logits)[0]

    torch.set_num_threads(1)
    model = build_model(model_name, norm)
    model.load_state_dict(state, strict=True)
    model.eval()
    mean, deviation = float(metadata["equinorm.mean"]), float(metadata["equinorm.deviation"])
    x = torch.from_numpy(((images[256:] / 255 - mean) / deviation).astype(np.float32)).unsqueeze(1)
    with torch.no_grad():
        theirs = model(x)
    assert torch.equal(ours["labels"], torch.from_numpy(labels[256:].astype(np.int64)))
    difference = (ours["logits"] - theirs).abs().max().item()
    size = theirs.abs().max().item()
    print(f"largest logit {size:.3g}, largest difference {difference:.3g}")
    # 1e-5 of the logits' size; of 1 where they are smaller. They must depend on the image by more, or nothing was tested.
    assert theirs.std(dim=0).max() > 1e-4, "the logits hardly depend on the image"
    assert difference <= 1e-5 * max(size, 1), "the logits differ"


if __name__ == "__main__":
    main()
