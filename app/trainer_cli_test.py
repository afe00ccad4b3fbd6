#!/usr/bin/python3
"""What train, eval and bench step do with bad input: a message that names the thing, an exit that is not 0, no file.

    trainer_cli_test.py EQUINORM
"""
import gzip
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]


def run(*arguments, limit=None):
    def restrict():
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, preexec_fn=restrict)


def idx(path, dims, values):
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims) + bytes(values))


def main():
    with tempfile.TemporaryDirectory() as directory:
        data = pathlib.Path(directory) / "data"
        data.mkdir()
        for part in ("train", "t10k"):
            idx(data / f"{part}-images-idx3-ubyte.gz", (64, 8, 8), [(i * 37 + i // 64 % 4 * 50) % 256 for i in range(64 * 64)])
            idx(data / f"{part}-labels-idx1-ubyte.gz", (64,), [i % 4 for i in range(64)])
        net = pathlib.Path(directory) / "net.safetensors"
        good = ["train", "--model", "mlp", "--data", data, "--batch", 16, "--epochs", 1, "--threads", 1, "--save", net]

        done = run(*good)
        assert done.returncode == 0 and net.exists(), done
        assert "\r" not in done.stdout and "test accuracy" in done.stdout, done.stdout
        assert run("eval", net, "--data", data).returncode == 0
        net_bytes = net.read_bytes()
        net.unlink()

        def refused(*arguments, names, **options):
            done = run(*arguments, **options)
            said = done.stderr + done.stdout
            assert done.returncode != 0, (arguments, done)
            assert done.returncode > 0, ("killed by a signal", arguments, done)
            for name in names:
                assert name in said, (arguments, name, done)
            assert not list(pathlib.Path(directory).glob("net*")), ("left a file behind", arguments)

        for flag, value, names in [
            ("--model", "vgg", ["vgg", "mlp, cnn, resnet8"]),
            ("--norm", "batchnorm", ["batchnorm", "none, batch, layer, rms, instance, group:G"]),
            ("--norm", "instance", ["bn1", "mlp", "instance", "every value by itself"]),
            ("--norm", "group", ["group", "group:G"]),
            ("--norm", "group:many", ["group:many", "group:8"]),
            ("--norm", "group:7", ["bn1", "100 channels", "7 groups"]),
            ("--activation", "gelu", ["gelu", "sigmoid"]),
            ("--optimizer", "lion", ["lion", "adam"]),
            ("--schedule", "linear", ["linear", "cosine"]),
            ("--init", "zero", ["zero", "xavier"]),
            ("--batch", 0, ["batch", "0"]),
            ("--batch", -3, ["--batch", "-3"]),
            ("--batch", 65, ["batch", "65", "64"]),
            ("--batch", 10**30, ["batch"]),
            ("--epochs", 0, ["epoch", "0"]),
            ("--epochs", "many", ["--epochs", "many"]),
            ("--lr", -1, ["rate", "-1"]),
            ("--lr", "nan", ["rate", "nan"]),
            ("--momentum", 1, ["momentum", "1"]),
            ("--weight-decay", 2, ["decay", "2"]),
            ("--dropout", 1, ["dropout", "1"]),
            ("--init-scale", 0, ["scale", "0"]),
            ("--threads", -1, ["threads", "-1"]),
            ("--threads", 100000, ["threads", "100000"]),
            ("--data", "/nowhere", ["/nowhere"]),
            ("--save", "/nowhere/net", ["/nowhere"]),
            ("--frobnicate", 1, ["frobnicate"]),
        ]:
            arguments = list(map(str, good))
            if flag in arguments:
                arguments[arguments.index(flag) + 1] = value
            else:
                arguments += [flag, value]
            refused(*arguments, names=names)

        # A loss that stops being finite names the step and the rate, and saves nothing.
        refused(*good, "--norm", "none", "--activation", "relu", "--lr", 1e6, "--schedule", "constant", names=["step", "1e+06", "diverged"])
        # A disk that is full: here a limit on the size of files.
        refused(*good, names=["net.safetensors"], limit=4096)

        bad = pathlib.Path(directory) / "bad"
        for content, name in [(b"", "bad"), (b"\xff" * 100, "bad"), (net_bytes[:-7], "bad"), (net_bytes + b"x", "bad"),
                              (net_bytes.replace(b"fc1.weight", b"fc9.weight"), "fc1.weight"),
                              (net_bytes.replace(b'equinorm.model":"mlp', b'equinorm.model":"vgg'), "vgg"),
                              (net_bytes.replace(b'equinorm.norm":"batch', b'equinorm.norm":"layer'), "bn1.num_batches_tracked")]:
            bad.write_bytes(content)
            refused("eval", bad, "--data", data, names=[name])
        refused("eval", "/nowhere", names=["/nowhere"])
        bad.write_bytes(net_bytes)
        refused("eval", bad, "--data", "mnist", names=["28x28"])
        refused("eval", bad, "--data", data, "--split", "dev", names=["dev", "train"])
        refused("eval", bad, "--data", data, "--logits", "/nowhere/logits", names=["/nowhere"])
        refused("bench", "step", "--batch", 0, names=["batch"])
        refused("bench", "step", "--steps", 0, names=["steps"])


if __name__ == "__main__":
    main()
