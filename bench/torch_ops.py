#!/usr/bin/python3
"""PyTorch's norms beside ours and beside a copy of the same tensor: the peer of `equinorm bench all`.

    bench/torch_ops.py --equinorm build/bin/equinorm                 a table on the terminal
    bench/torch_ops.py --equinorm build/bin/equinorm --out docs      the same as docs/speed_torch.md
    bench/torch_ops.py --equinorm build/bin/equinorm --quick         a few small shapes: to see that it works

One thread. PyTorch is given a warm heap (this script starts itself again with the environment that makes it so), since
fresh pages cost more than many of its operations; every tensor is written before it is timed. In each round PyTorch's
norm and PyTorch's copy take turns for --seconds, then `equinorm bench OP --json` runs as long, with a copy of its own.

What is timed, in no_grad and without autograd:
  batch_norm     torch.native_batch_norm, aten::native_batch_norm_backward
  layer_norm     torch.native_layer_norm, aten::native_layer_norm_backward
  group_norm     torch.native_group_norm, aten::native_group_norm_backward, 32 groups; that takes planes alone, so as
                 autograd does, it is given copies of x and dy where they are channels-last
  instance_norm  torch.instance_norm; backward what autograd does: aten::native_batch_norm_backward of one sample of N·C
                 channels, of a copy of dy where that is channels-last, and the sums over samples
  rms_norm       PyTorch 1.13 has none: x·rsqrt(mean(x²) + ε)·γ, and its gradients, by the fewest operations, each with a
                 tensor to write to
PyTorch 1.13 has no norm for the CPU that writes where it is told: the outputs of the others come from the warm heap.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from torch_step import WARM_HEAP, with_warm_heap

EPSILON, GROUPS, MARGIN = 1e-5, 32, 1.1
# Those of app/bench_all.cpp.
IMAGES = [(32, 64, 112, 112), (32, 64, 56, 56), (32, 256, 56, 56), (32, 512, 28, 28), (32, 2048, 7, 7),
          (64, 32, 32, 32), (8, 64, 56, 56)]
GROUP_IMAGES = [(32, 64, 56, 56), (32, 256, 56, 56), (32, 512, 28, 28), (8, 64, 56, 56)]
MATRIX, ONE_ROW = (4096, 512), (1, 4096)
ROWS = [(8192, 1024), (4096, 512), (512, 768)]
PASSES, LAYOUTS = ("train", "backward", "infer"), ("nhwc", "nchw")


class Problem(NamedTuple):
    op: str
    shape: tuple
    layout: str
    what: str  # the pass
    type: str = "f32"

    def text(self):
        layout = "rows" if len(self.shape) == 2 else self.layout
        return f"{self.op} {'' if self.type == 'f32' else self.type + ' '}{layout} {self.what}"

    def extents(self):
        return ",".join(map(str, self.shape))


def families(quick):
    """(title, problems) of every table."""
    images, group_images, matrices, rows = IMAGES, GROUP_IMAGES, [MATRIX], ROWS
    if quick:
        images, group_images, matrices, rows = [(2, 64, 14, 14)], [(2, 64, 14, 14)], [(64, 32)], [(64, 96)]

    def of(op, shapes, layouts=("nhwc",), passes=PASSES, kind="f32"):
        return [Problem(op, shape, layout, what, kind) for layout in layouts for what in passes for shape in shapes]

    def narrow(op, shapes, layouts=("nhwc",)):
        return of(op, shapes, layouts, PASSES[:2], "bf16")

    wide = [max(group_images, key=math.prod)]
    return [
        ("Batch norm", of("batch_norm", images + matrices) + of("batch_norm", images, ("nchw",))),
        ("Layer norm", of("layer_norm", rows) + of("layer_norm", [ONE_ROW], passes=("infer",))),
        ("RMS norm", of("rms_norm", rows) + of("rms_norm", [ONE_ROW], passes=("infer",))),
        ("Group norm, 32 groups", of("group_norm", group_images, LAYOUTS)),
        ("Instance norm", of("instance_norm", group_images, LAYOUTS)),
        ("bf16, beside a copy of bf16", narrow("batch_norm", wide, LAYOUTS) + narrow("group_norm", wide, LAYOUTS)
         + narrow("layer_norm", rows[:1]) + narrow("rms_norm", rows[:1])),
    ]


# ---- PyTorch's side -------------------------------------------------------------------------------------------------


class Peer:
    """x, dy and parameters of a problem; `copy` and `run` are the functions that are timed."""

    def __init__(self, problem):
        import torch

        self.problem = problem
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[problem.type]
        random = torch.Generator().manual_seed(1)
        last = problem.layout == "nhwc" and len(problem.shape) == 4
        self.memory_format = torch.channels_last if last else torch.contiguous_format

        def tensor():
            return torch.randn(problem.shape, generator=random).to(kind).contiguous(memory_format=self.memory_format)

        # Where 1.13 takes floats beside bf16 at all, backward takes nothing else.
        parameters = kind if problem.op != "batch_norm" else torch.float32
        channels = problem.shape[1]
        self.x, self.dy = tensor(), tensor()
        self.gamma = (1 + torch.randn(channels, generator=random) / 4).to(parameters)
        self.beta = torch.randn(channels, generator=random).to(parameters)
        self.mean, self.variance = torch.zeros(channels), torch.ones(channels)
        self.copied = torch.zeros_like(self.x)
        self.run = getattr(self, problem.op)()[problem.what]

    def copy(self):
        self.copied.copy_(self.x)

    def batch_norm(self):
        import torch

        x, dy, gamma, beta = self.x, self.dy, self.gamma, self.beta
        _, mean, deviation = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, EPSILON)
        backward = torch.ops.aten.native_batch_norm_backward.default
        return {
            "train": lambda: torch.native_batch_norm(x, gamma, beta, None, None, True, 0.1, EPSILON)[0],
            "infer": lambda: torch.native_batch_norm(x, gamma, beta, self.mean, self.variance, False, 0.1, EPSILON)[0],
            "backward": lambda: backward(dy, x, gamma, None, None, mean, deviation, True, EPSILON, [True] * 3),
        }

    def layer_norm(self):
        import torch

        x, dy, gamma, beta, shape = self.x, self.dy, self.gamma, self.beta, self.x.shape[-1:]
        _, mean, deviation = torch.native_layer_norm(x, shape, gamma, beta, EPSILON)
        backward = torch.ops.aten.native_layer_norm_backward.default

        def forward():
            return torch.native_layer_norm(x, shape, gamma, beta, EPSILON)[0]

        return {"train": forward, "infer": forward,
                "backward": lambda: backward(dy, x, shape, mean, deviation, gamma, beta, [True] * 3)}

    def group_norm(self):
        import torch

        x, dy, gamma, beta = self.x, self.dy, self.gamma, self.beta
        n, c, h, w = x.shape
        _, mean, deviation = torch.native_group_norm(x, gamma, beta, n, c, h * w, GROUPS, EPSILON)
        backward = torch.ops.aten.native_group_norm_backward.default

        def forward():
            return torch.native_group_norm(x, gamma, beta, n, c, h * w, GROUPS, EPSILON)[0]

        def planes_backward():
            return backward(dy.contiguous(), x.contiguous(), mean, deviation, gamma, n, c, h * w, GROUPS, [True] * 3)

        return {"train": forward, "infer": forward, "backward": planes_backward}

    def instance_norm(self):
        import torch

        x, dy, gamma, beta = self.x, self.dy, self.gamma, self.beta
        n, c, h, w = x.shape
        planes, repeated = x.contiguous().view(1, n * c, h, w), gamma.repeat(n)
        _, mean, deviation = torch.native_batch_norm(planes, repeated, beta.repeat(n), None, None, True, 0.1, EPSILON)

        def forward():
            return torch.instance_norm(x, gamma, beta, None, None, True, 0.1, EPSILON, False)

        def backward():  # dx stays in planes: a copy back is not charged
            dy_planes = dy.contiguous().view(1, n * c, h, w)
            dx, dgamma, dbeta = torch.ops.aten.native_batch_norm_backward.default(
                dy_planes, planes, repeated, None, None, mean, deviation, True, EPSILON, [True] * 3)
            return dx.view(n, c, h, w), dgamma.view(n, c).sum(0), dbeta.view(n, c).sum(0)

        return {"train": forward, "infer": forward, "backward": backward}

    def rms_norm(self):
        import torch

        x, dy, gamma = self.x, self.dy, self.gamma
        y, dx, dgamma = (torch.zeros_like(t) for t in (x, x, gamma))
        x_hat, product = torch.zeros_like(x), torch.zeros_like(x)
        root, dot = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])

        def forward():
            torch.mul(x, x, out=product)
            torch.mean(product, -1, keepdim=True, out=root)
            root.add_(EPSILON).rsqrt_()
            torch.mul(x, root, out=x_hat)
            return torch.mul(x_hat, gamma, out=y)

        def backward():  # x_hat and root are forward's
            torch.mul(dy, x_hat, out=product)
            torch.sum(product, 0, out=dgamma)
            product.mul_(gamma)
            torch.mean(product, -1, keepdim=True, out=dot)
            torch.mul(dy, gamma, out=dx)
            dx.addcmul_(x_hat, dot, value=-1).mul_(root)
            return dx, dgamma

        forward()
        return {"train": forward, "infer": forward, "backward": backward}

    def check(self):
        """What is timed is the norm that it is said to be: against autograd, in double."""
        import torch
        from torch.nn import functional

        x, gamma, beta = (t.double().requires_grad_() for t in (self.x, self.gamma, self.beta))
        with torch.enable_grad():
            y = {
                "batch_norm": lambda: functional.batch_norm(x, self.mean.double(), self.variance.double(), gamma, beta,
                                                            self.problem.what != "infer", 0, EPSILON),
                "layer_norm": lambda: functional.layer_norm(x, x.shape[-1:], gamma, beta, EPSILON),
                "rms_norm": lambda: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * gamma,
                "group_norm": lambda: functional.group_norm(x, GROUPS, gamma, beta, EPSILON),
                "instance_norm": lambda: functional.instance_norm(x, None, None, gamma, beta, True, 0, EPSILON),
            }[self.problem.op]()
            y.backward(self.dy.double())
        wanted = (x.grad, gamma.grad, beta.grad) if self.problem.what == "backward" else (y.detach(),)
        found = self.run() if self.problem.what == "backward" else (self.run(),)
        for want, have in zip(wanted, found):
            error = ((have.double() - want).abs().max() / want.abs().max()).item()
            # A few roundings of bf16, 2⁻⁸, which 1.13 also adds up in; of floats far more than a few.
            assert error < (0.1 if self.problem.type == "bf16" else 1e-4), (self.problem, error)


def take_turns(contenders, seconds):
    """Median milliseconds of each; as bench/interleaved.hpp."""
    repeats, samples = [], [[] for _ in contenders]
    for run in contenders:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, min(1000, int(1e-3 / max(time.perf_counter() - start, 1e-7)))))
    begin = time.perf_counter()
    while len(samples[0]) < 5 or time.perf_counter() - begin < seconds:
        for run, repeat, times in zip(contenders, repeats, samples):
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            times.append(1e3 * (time.perf_counter() - start) / repeat)
    return [statistics.median(times) for times in samples]


# ---- Ours, and both -------------------------------------------------------------------------------------------------


def ours(program, problem, seconds):
    """The line of JSON of `equinorm bench OP`."""
    command = [program, "bench", problem.op, "--shape", problem.extents(), "--layout", problem.layout, "--pass",
               problem.what, "--type", problem.type, "--threads", "1", "--seconds", str(seconds), "--json"]
    if problem.op == "group_norm":
        command += ["--groups", str(GROUPS)]
    environment = {key: value for key, value in os.environ.items() if key not in WARM_HEAP}  # it needs none
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"torch_ops.py: {' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


class Row(NamedTuple):
    problem: Problem
    copy: float  # ours, as all that follow the median of the rounds
    equinorm: float  # in copies
    torch: float
    by_copies: float  # ours over PyTorch's
    by_time: float
    least: float  # by time, of all rounds
    most: float

    def mark(self):
        faster = [name for name, ratio in (("copies", self.by_copies), ("time", self.by_time)) if ratio > MARGIN]
        return f"torch ({', '.join(faster)})" if faster else ""

    def line(self):
        copy = f"{1e3 * self.copy:.{0 if self.copy >= 0.1 else 2}f}"
        cells = [self.problem.text(), self.problem.extents(), copy, f"**{self.equinorm:.2f}**", f"{self.torch:.2f}",
                 f"{self.by_copies:.2f}", f"{self.by_time:.2f}", f"{self.least:.2f}–{self.most:.2f}", self.mark()]
        return f"| {' | '.join(cells)} |\n"


def measure(problem, options):
    import torch

    peer = Peer(problem)
    if options.quick:
        peer.check()
    rounds = []
    for _ in range(options.rounds):
        torch_copy, torch_norm = take_turns([peer.copy, peer.run], options.seconds)
        results = {r["name"]: r["median_ms"] for r in ours(options.equinorm, problem, options.seconds)["results"]}
        rounds.append((results["copy"], results["equinorm"], torch_copy, torch_norm))

    def median(figure):
        return statistics.median(figure(*times) for times in rounds)

    by_time = [mine / theirs for _, mine, _, theirs in rounds]
    return Row(problem, median(lambda copy, *_: copy), median(lambda copy, mine, *_: mine / copy),
               median(lambda _, __, copy, theirs: theirs / copy),
               median(lambda copy, mine, torch_copy, theirs: (mine / copy) / (theirs / torch_copy)),
               statistics.median(by_time), min(by_time), max(by_time))


def machine():
    """As app/bench_machine.cpp."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"{os.cpu_count()} × {names[0] if names else 'unknown processor'}, {today}"


def markdown(tables, options, load):
    import torch

    rows = [row for _, table in tables for row in table]
    faster = sum(bool(row.mark()) for row in rows)
    script = f"bench/torch_ops.py{' --quick' if options.quick else ''} --equinorm build/bin/equinorm --out docs"
    seconds = f"{options.seconds:g}"
    text = f"""<!-- Generated by `{script}`: not to be edited. -->
# Speed beside PyTorch

Medians of {options.rounds} rounds, one thread, as multiples of a copy of the same tensor: ours of ours, PyTorch's of
PyTorch's ({torch.__version__}). A round is {seconds} s of PyTorch, its norm and its copy in turn, then {seconds} s of
`equinorm bench`. Ours/torch is the ratio of these multiples (by copies) and of plain milliseconds (by time, with the
least and the most of all rounds): under 1, ours is faster. PyTorch has a warm heap, its gradients are taken without
autograd, and its RMS norm is composed of other operations: `bench/torch_ops.py --help` says of what. The call from
Python, 2 to 3 µs, is in its times. In bf16 its parameters are bf16 too, but those of batch norm; ours are floats.
Of {len(rows)} rows PyTorch is in **{faster} more than {MARGIN} times as fast** (`torch`, and by which ratio).
"""
    if options.quick:
        text += "\nA quick run, of a few small shapes: its figures mean nothing.\n"
    for title, table in tables:
        text += f"""
## {title}

| what | shape | copy, µs | equinorm | torch | ours/torch by copies | by time | rounds | torch is faster |
|---|---|---|---|---|---|---|---|---|
""" + "".join(row.line() for row in table)
    after = os.getloadavg()[0]
    return text + f"\n{machine()}. Load of the machine before {load:.1f}, after {after:.1f} (this run makes 1).\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--equinorm", required=True, metavar="PROGRAM", help="our side, for example build/bin/equinorm")
    parser.add_argument("--out", metavar="DIRECTORY", type=pathlib.Path, help="write speed_torch.md there")
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds, and a check of what is timed")
    parser.add_argument("--rounds", type=int, help="of each row (default 5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each side in each round (default 0.2; quick: 0.01)")
    options = parser.parse_args()
    options.rounds = options.rounds if options.rounds is not None else 2 if options.quick else 5
    options.seconds = options.seconds if options.seconds is not None else 0.01 if options.quick else 0.2
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; expected 1 or more")
    if not 0 < options.seconds <= 600:
        parser.error(f"--seconds is {options.seconds:g}; expected more than 0, and 600 at most")
    if not os.access(options.equinorm, os.X_OK) or os.path.isdir(options.equinorm):
        parser.error(f"--equinorm {options.equinorm}: there is no such program; `cmake/build OFF equinorm_app` makes "
                     "build/bin/equinorm")
    return options


def main():
    options = arguments()
    with_warm_heap()
    try:
        import torch
    except ImportError as error:
        print(f"skipped: {error}")
        sys.exit(77)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    plan = families(options.quick)
    total, done, tables = sum(len(problems) for _, problems in plan), 0, []
    begin, end = ("\r", "\x1b[K") if sys.stderr.isatty() else ("", "\n")
    for title, problems in plan:
        tables.append((title, []))
        for problem in problems:
            done += 1
            step = f"[{done}/{total}] {problem.text()} {problem.extents()}"
            print(begin + step, end=end, file=sys.stderr, flush=True)
            tables[-1][1].append(measure(problem, options))
    print(begin, end="", file=sys.stderr)
    text = markdown(tables, options, load)
    if not options.out:
        print(text, end="")
        return
    path = options.out / "speed_torch.md"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.rename(path)
    print(f"{total} rows: {path}")


if __name__ == "__main__":
    main()
