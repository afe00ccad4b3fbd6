#!/usr/bin/python3
"""`bench/torch_ops.py --quick`: a row for every operation, pass and layout, marked as its figures say.

    torch_ops_test.py EQUINORM SCRIPT DIRECTORY    77 where there is no PyTorch
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

PROGRAM, SCRIPT, OUT = sys.argv[1:]
OPS = ("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm")


def run(*arguments, **environment):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def check_refusals(directory):
    (directory / "torch.py").write_text("raise ImportError('no torch here')")
    missing = directory / "none"
    for arguments, status, names in [
        (["--equinorm", PROGRAM, "--quick"], 77, ["skipped", "no torch here"]),
        ([], 2, ["--equinorm"]),
        (["--equinorm", missing], 2, [str(missing), "cmake/build"]),
        (["--equinorm", directory], 2, [str(directory), "cmake/build"]),
        (["--equinorm", PROGRAM, "--rounds", "0"], 2, ["--rounds", "0"]),
        (["--equinorm", PROGRAM, "--seconds", "0"], 2, ["--seconds", "0"]),
    ]:
        done = run(*arguments, PYTHONPATH=str(directory))
        assert done.returncode == status, (arguments, done)
        assert all(name in done.stdout + done.stderr for name in names), (arguments, done)


def check_table():
    done = run("--quick", "--equinorm", PROGRAM, "--out", OUT)
    if done.returncode == 77:
        print(done.stdout)
        sys.exit(77)
    assert done.returncode == 0 and "[1/" in done.stderr and "[1/" not in done.stdout, done
    text = pathlib.Path(OUT, "speed_torch.md").read_text()
    lines = re.findall(r"^\| (.*_norm .*) \|$", text, re.MULTILINE)
    rows = [[cell.strip(" *") for cell in line.split("|")] for line in lines]
    assert f"{len(rows)} rows" in done.stdout, (len(rows), done.stdout)
    faster = 0
    for what, shape, copy, equinorm, torch, by_copies, by_time, rounds, mark in rows:
        least, most = map(float, rounds.split("–"))
        assert float(copy) > 0 and float(equinorm) > 0 and float(torch) > 0, what
        assert 0 < least <= float(by_time) <= most, what
        for ratio, name in ((by_copies, "copies"), (by_time, "time")):
            assert ratio == "1.10" or (name in mark) == (float(ratio) > 1.1), (what, ratio, mark)  # 1.10: rounded
        faster += mark != ""
    assert f"**{faster} more than" in text, faster
    seen = {what for what, *_ in rows}
    for op in OPS:
        for layout in ("rows",) if op in OPS[1:3] else ("nhwc", "nchw"):
            assert {f"{op} {layout} {what}" for what in ("train", "backward", "infer")} <= seen, (op, layout, seen)
        assert op == "instance_norm" or any(what.startswith(f"{op} bf16 ") for what in seen), op


def main():
    with tempfile.TemporaryDirectory() as directory:
        check_refusals(pathlib.Path(directory))
    check_table()


if __name__ == "__main__":
    main()
