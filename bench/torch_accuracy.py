#!/usr/bin/python3
"""PyTorch's side of `equinorm bench accuracy --torch bench/torch_accuracy.py`, which runs this.

    torch_accuracy.py DIRECTORY    reads cases.json and <case>.{x,dy,gamma,beta}, raw floats in the order of memory;
                                   writes <case>.{y,dx,dgamma,dbeta}. Exits with 77 ('skipped') where there is no PyTorch.
"""
import json
import pathlib
import sys

try:
    import numpy
    import torch
    from torch.nn import functional
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def rms_norm(x, gamma, beta, epsilon):  # which PyTorch 1.13 does not have
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * gamma + beta


def normalize(case, x, gamma, beta):
    epsilon = case["epsilon"]
    return {
        "batch_norm": lambda: functional.batch_norm(x, None, None, gamma, beta, True, 0.1, epsilon),
        "layer_norm": lambda: functional.layer_norm(x, x.shape[-1:], gamma, beta, epsilon),
        "rms_norm": lambda: rms_norm(x, gamma, beta, epsilon),
        "group_norm": lambda: functional.group_norm(x, case["groups"], gamma, beta, epsilon),
        "instance_norm": lambda: functional.instance_norm(x, None, None, gamma, beta, True, 0.1, epsilon),
    }[case["op"]]()


def main():
    directory = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for i, case in enumerate(json.loads((directory / "cases.json").read_text())):
        shape = case["shape"]
        last = case["layout"] == "nhwc" and len(shape) == 4

        def read(name):
            return torch.from_numpy(numpy.fromfile(directory / f"{i}.{name}", numpy.float32))

        def tensor(name):  # channels-last is a matter of strides to PyTorch
            n, c, *space = shape
            return read(name).view(n, *space, c).permute(0, 3, 1, 2) if last else read(name).view(shape)

        def write(name, values):
            values = values.detach()
            values = values.permute(0, 2, 3, 1) if last and values.dim() == 4 else values
            values.contiguous().numpy().tofile(directory / f"{i}.{name}")

        x, gamma, beta = (t.requires_grad_() for t in (tensor("x"), read("gamma"), read("beta")))
        y = normalize(case, x, gamma, beta)
        y.backward(tensor("dy"))
        for name, values in (("y", y), ("dx", x.grad), ("dgamma", gamma.grad), ("dbeta", beta.grad)):
            write(name, values)


if __name__ == "__main__":
    main()
