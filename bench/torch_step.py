#!/usr/bin/python3
"""One training step of Equinorm's models in PyTorch: the peer of `equinorm bench step`.

    bench/torch_step.py --model cnn --norm batch --batch 128 --threads 1 --layout nhwc      one JSON line
    bench/torch_step.py --model cnn --threads 1 --against build/bin/equinorm                ours and PyTorch in turn, a table

The same net, sizes, optimizer (SGD with momentum 0.9) and synthetic images in memory. PyTorch is given a warm heap: fresh
pages cost more than many of its operations, so memory that is freed must stay with the process.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

WARM_HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def with_warm_heap():
    """Starts this program again with the heap's environment, which is read before any of it runs."""
    if all(os.environ.get(key) == value for key, value in WARM_HEAP.items()) and not any(k in os.environ for k in UNSET):
        return
    environment = {key: value for key, value in os.environ.items() if key not in UNSET} | WARM_HEAP
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def build_model(name, norm):
    """The nets of src/nn/models.cpp, with the same parameter names."""
    import torch
    from torch import nn

    kind, _, groups = norm.partition(":")
    bias = kind in ("none", "rms")  # the other norms have a bias of their own

    class RmsNorm(nn.Module):  # as nn.RMSNorm of PyTorch 2.4, over the channels
        def __init__(self, channels):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))

        def forward(self, x):
            weight = self.weight.view(-1, *[1] * (x.dim() - 2))
            return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5) * weight

    norm2d = {
        "none": lambda channels: nn.Identity(),
        "batch": nn.BatchNorm2d,
        "layer": lambda channels: nn.GroupNorm(1, channels),
        "rms": RmsNorm,
        "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
        "group": lambda channels: nn.GroupNorm(int(groups), channels),
    }[kind]
    norm1d = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}.get(kind, norm2d)  # of [batch, features]

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [784, 100, 100, 100, 10]
            for i in range(4):
                setattr(self, f"fc{i + 1}", nn.Linear(sizes[i], sizes[i + 1], bias=bias or i == 3))
                if i < 3:
                    setattr(self, f"bn{i + 1}", norm1d(100))

        def forward(self, x):
            x = x.flatten(1)
            for i in "123":
                x = torch.sigmoid(getattr(self, "bn" + i)(getattr(self, "fc" + i)(x)))
            return self.fc4(x)

    class Cnn(nn.Module):
        def __init__(self):
            super().__init__()
            channels = [1, 16, 32, 64]
            for i in range(3):
                setattr(self, f"conv{i + 1}", nn.Conv2d(channels[i], channels[i + 1], 3, padding=1, bias=bias))
                setattr(self, f"bn{i + 1}", norm2d(channels[i + 1]))
            self.fc = nn.Linear(64, 10)

        def forward(self, x):
            x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
            x = torch.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
            x = torch.relu(self.bn3(self.conv3(x)))
            return self.fc(x.mean((2, 3)))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
            self.bn1 = norm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
            self.bn2 = norm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=bias), norm2d(outputs))

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            x = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(x)) + shortcut)

    class ResNet8(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=bias)
            self.bn1 = norm2d(16)
            self.layer1 = nn.Sequential(Block(16, 16, 1))
            self.layer2 = nn.Sequential(Block(16, 32, 2))
            self.layer3 = nn.Sequential(Block(32, 64, 2))
            self.fc = nn.Linear(64, 10)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    return {"mlp": Mlp, "cnn": Cnn, "resnet8": ResNet8}[name]()


def measure(options):
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    layout = torch.channels_last if options.layout == "nhwc" else torch.contiguous_format
    model = build_model(options.model, options.norm).to(memory_format=layout)
    images = torch.randn(options.batch, 1, 28, 28).contiguous(memory_format=layout)
    labels = torch.arange(options.batch) % 10
    if options.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    milliseconds = []
    for step in range(options.warmup + options.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if step >= options.warmup:
            milliseconds.append(1000 * (time.perf_counter() - start))
    quartiles = statistics.quantiles(milliseconds, n=4)
    median = statistics.median(milliseconds)
    return {
        "bench": "step", "engine": "torch " + torch.__version__, "layout": options.layout, "model": options.model,
        "norm": options.norm, "batch": options.batch, "threads": options.threads, "optimizer": options.optimizer,
        "median_ms": median, "spread": (quartiles[2] - quartiles[0]) / median, "images_per_s": 1000 * options.batch / median,
    }


def compare(options):
    """Runs ours, PyTorch channels-last and PyTorch channels-first in turn: a drift of the machine meets all of them."""
    shared = ["--model", options.model, "--norm", options.norm, "--batch", str(options.batch), "--threads",
              str(options.threads), "--optimizer", options.optimizer, "--steps", str(options.steps), "--warmup",
              str(options.warmup)]
    contestants = {
        "equinorm": [options.against, "bench", "step", "--json", *shared],
        "torch nhwc": [sys.executable, __file__, "--layout", "nhwc", *shared],
        "torch nchw": [sys.executable, __file__, "--layout", "nchw", *shared],
    }
    times = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, command in contestants.items():
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[name].append(json.loads(line)["median_ms"])
    ours = statistics.median(times["equinorm"])
    print(f"{options.model}, norm {options.norm}, batch {options.batch}, {options.threads} threads: medians of "
          f"{options.rounds} rounds of {options.steps} steps")
    print(f"{'':12}{'ms/step':>9}{'images/s':>10}{'times ours':>12}   rounds")
    for name, values in times.items():
        median = statistics.median(values)
        rounds = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:12}{median:9.2f}{1000 * options.batch / median:10.0f}{median / ours:12.2f}   {rounds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["mlp", "cnn", "resnet8"], default="cnn")
    parser.add_argument("--norm", default="batch", help="none, batch, layer, rms, instance or group:G")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--layout", choices=["nhwc", "nchw"], default="nhwc")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--against", metavar="EQUINORM", help="the program to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.against:
        compare(options)
    else:
        with_warm_heap()
        print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
