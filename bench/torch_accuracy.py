#!/usr/bin/python3
"""PyTorch's side of `equinorm bench accuracy --torch bench/torch_accuracy.py`, which runs this.

    torch_accuracy.py DIRECTORY    reads cases.json and <case>.{x,dy,gamma,beta}, raw doubles in the order of memory that
                                   the case's type can hold; writes <case>.{y,dx,dgamma,dbeta}, of those that PyTorch
                                   takes. Exits with 77 ('skipped') where there is no PyTorch.
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


def step(case, x, dy, gamma, beta):
    """y and the gradients, or None if PyTorch refuses: f16, and one value per channel."""
    kind = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}[case["type"]]
    # Beside bf16 batch norm takes floats for parameters, and backward nothing else; the others take bf16.
    of_parameters = torch.float32 if kind is torch.bfloat16 and case["op"] == "batch_norm" else kind
    x, gamma, beta = x.to(kind), gamma.to(of_parameters), beta.to(of_parameters)
    try:
        y = normalize(case, *(t.requires_grad_() for t in (x, gamma, beta)))
        y.backward(dy.to(kind))
    except (RuntimeError, ValueError) as error:
        if "not implemented for" in str(error) or "more than 1" in str(error):
            return None
        raise
    return y, x.grad, gamma.grad, beta.grad


def main():
    directory = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for i, case in enumerate(json.loads((directory / "cases.json").read_text())):
        shape = case["shape"]
        last = case["layout"] == "nhwc" and len(shape) == 4

        def read(name):
            return torch.from_numpy(numpy.fromfile(directory / f"{i}.{name}", numpy.float64))

        def tensor(name):  # channels-last is a matter of strides to PyTorch
            n, c, *space = shape
            return read(name).view(n, *space, c).permute(0, 3, 1, 2) if last else read(name).view(shape)

        def write(name, values):
            values = values.detach().double()
            values = values.permute(0, 2, 3, 1) if last and values.dim() == 4 else values
            values.contiguous().numpy().tofile(directory / f"{i}.{name}")

        results = step(case, tensor("x"), tensor("dy"), read("gamma"), read("beta"))
        for name, values in zip(("y", "dx", "dgamma", "dbeta"), results or ()):
            write(name, values)


if __name__ == "__main__":
    main()
