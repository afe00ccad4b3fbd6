#!/usr/bin/python3
"""`equinorm bench`: every operation can be measured, `all` and `accuracy` write whole tables, bad input is refused.

    bench_cli_test.py EQUINORM TORCH_ACCURACY
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

PROGRAM, TORCH_ACCURACY = sys.argv[1:]
FAST = ("--seconds", "0.01")
ROWS = ("layer_norm", "rms_norm")
OPS = ("batch_norm", "group_norm", "instance_norm", *ROWS)


def run(*arguments):
    return subprocess.run([PROGRAM, "bench", *map(str, arguments)], capture_output=True, text=True)


def tables(markdown):
    """The cells of every table row; all rows of a table have as many as its head."""
    rows = []
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        assert len({len(line) for line in cells}) == 1, block
        rows += cells[2:]
    return rows


def check_ops():
    for op in OPS:
        shape = "6,32" if op in ROWS else "2,32,5,3"
        for kind in ("f32", "bf16", "f16", "f64"):
            for arguments in (["--pass", "train", "--relu"], ["--pass", "backward", "--add", "--activation", "silu"], ["--pass", "infer"]):
                done = run(op, "--shape", shape, "--type", kind, *arguments, *FAST, "--json")
                assert done.returncode == 0, (op, kind, arguments, done)
                result = json.loads(done.stdout)
                assert result["op"] == op and result["type"] == kind, result
                names = [r["name"] for r in result["results"]]
                assert names[:2] == ["copy", "equinorm"] and all(r["median_ms"] > 0 for r in result["results"]), result
        done = run(op, "--shape", shape, "--threads", 2, *FAST)
        assert done.returncode == 0 and "one_thread" in done.stdout, done


def check_all(directory):
    done = run("all", "--quick", "--visits", 2, "--seconds", "0.001", "--out", directory)
    assert done.returncode == 0 and "\r" not in done.stdout, done
    result = json.loads((directory / "speed.json").read_text())
    measured = result["rows"]
    assert result["visits"] == 2, result["visits"]
    rows = tables((directory / "speed.md").read_text())
    assert len(rows) == len(measured) > 100, len(rows)
    for row, cells in zip(measured, rows):
        assert cells[0].startswith(row["op"]) and row["pass"] in cells[0], (row, cells)
        # A mark is there if and only if the numbers say so.
        times = {r["name"]: r["of_copy"] for r in row["results"]}
        above = times["equinorm"] > row["target_of_copy"]
        if row["threads"] > 1:
            above = row["of_one_thread"][0] > max(1, row["one_thread_again"][1])
        assert row["misses_target"] == above == ("target" in cells[-1]), (row, cells)
        lowest = {r["name"]: r["of_copy_95"][0] for r in row["results"]}
        floor, plain = (row["misses_target"] and row["target_of_copy"] < lowest.get(name, 0)
                        and row[f"{name}_of_equinorm"][0] <= 1 for name in ("floor", "plain"))
        assert ("floor" in times) == (row["threads"] == 1) >= ("plain" in times), row
        # Of a target that is missed, the first of these that holds.
        doubt = row["threads"] == 1 and lowest["equinorm"] <= row["target_of_copy"]
        meets = times.get("plain", 1e9) <= row["target_of_copy"]
        why = {"below the floor": floor, "plain too": plain, "in doubt": doubt, "plain meets it": meets}
        why = next((name for name, holds in why.items() if holds), None) if row["misses_target"] else None
        assert re.findall(r"\((.*)\)", cells[-1]) == ([why] if why else []), (row, cells)
        assert row["behind_peer"] == (times["equinorm"] > 1.1 * times.get("onednn", 1e9)) == ("peer" in cells[-1]), row
    for key, values in {"op": OPS, "layout": ("nhwc", "nchw"), "pass": ("train", "backward", "infer"),
                        "type": ("f32", "bf16", "f16"), "threads": (1, 2)}.items():
        assert {row[key] for row in measured} == set(values), key
    for op in ("batch_norm", "layer_norm"):
        assert any(row["op"] == op and any(r["name"] == "onednn" for r in row["results"]) for row in measured), op
    chart = xml.etree.ElementTree.fromstring((directory / "speed.svg").read_text())
    names = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text") if text.text and " · " in text.text]
    assert len(names) == len(measured), len(names)


def ulp(cell):
    """Of a cell of a table of errors."""
    number = re.match(r"\**([0-9.e+]+)", cell)
    return float(number.group(1)) if number else float("inf")


def check_accuracy(directory):
    done = run("accuracy", "--quick", "--out", directory, "--torch", TORCH_ACCURACY)
    assert done.returncode == 0, done
    text = (directory / "accuracy.md").read_text()
    head, poison, *sections = re.split(r"^## ", text, flags=re.MULTILINE)

    # Element by element, the bounds of src/ops/*/README.md.
    largest = tables(head)
    assert [cells[0] for cells in largest] == ["f32", "bf16", "f16", "f64"], largest
    assert all(0 < int(cell.rstrip(" %")) <= 100 for cells in largest for cell in cells[5:]), largest
    assert all(cell == "0" for cells in tables(poison) for cell in cells[1:]) and len(tables(poison)) == 8, poison

    torch = "skipped" not in done.stdout
    assert len(sections) == 4 * 8, len(sections)  # types, operations × layouts
    for section in sections:
        op, kind = section.split()[:2]
        rows = tables(section)
        inputs = 8 if kind.startswith("f16") else 11  # f16 holds neither means of 1e5 and 1e6 nor 1e8
        assert len(rows) == inputs * (2 if kind.startswith("f32") else 1) and len(rows[0]) == 13, section
        assert any(cells[0] == "mean 1e4 σ" for cells in rows) and any(cells[0] == "one element" for cells in rows)
        # Those of the sums are for the worst of many roundings: in ulp, the roundings of a result and of a sum of eight
        # floats, and those of y and dx. Of narrow types little more than the rounding to them.
        y, dx, dgamma = (8, 12, 16) if op in ROWS else (6, 8, 10)
        limits = {"f32": (y, dx, dgamma, 8), "bf16": (1, 1, dgamma, 8), "f16": (1, 1, dgamma, 8)}.get(kind.rstrip(","))
        for cells in rows[:inputs]:
            if limits and cells[0] != "one element":
                assert all(ulp(cells[1 + 3 * k]) <= limits[k] for k in range(4)), (section.splitlines()[0], cells)
            refused = kind.startswith("f16") or cells[0] == "one element"
            assert not torch or refused or "–" not in cells[3::3], (section.splitlines()[0], cells)
        assert op not in ("batch_norm", "layer_norm") or not kind.startswith("f32") or "–" not in rows[0][2::3], rows[0]
    if not torch:
        print("torch: skipped")


def check_refusals(directory):
    (directory / "file").write_text("")
    for arguments, names in [
        (["batch_norm", "--shape", "1,2,3"], ["--shape", "1,2,3", "N,C,H,W"]),
        (["batch_norm", "--shape", "0,4"], ["--shape", "0,4", "at least 1"]),
        (["batch_norm", "--shape", "1x4"], ["--shape", "1x4"]),
        (["batch_norm", "--shape", "99999,99999"], ["too large", "2^31"]),
        (["batch_norm", "--layout", "hwcn"], ["--layout", "hwcn", "nhwc"]),
        (["batch_norm", "--pass", "forward"], ["--pass", "forward", "backward"]),
        (["batch_norm", "--type", "int8"], ["--type", "int8", "bf16"]),
        (["batch_norm", "--relu", "--activation", "silu"], ["--relu", "--activation"]),
        (["batch_norm", "--activation", "tanh"], ["--activation", "tanh", "gelu"]),
        (["batch_norm", "--threads", "0"], ["--threads", "0"]),
        (["batch_norm", "--seconds", "-1"], ["--seconds", "-1"]),
        (["batch_norm", "--simd", "MMX"], ["MMX"]),
        (["batch_norm", "--groups", "4"], ["--groups"]),
        (["group_norm", "--groups", "5"], ["--groups", "5", "64 channels"]),
        (["group_norm", "--groups", "0"], ["--groups", "0"]),
        (["layer_norm", "--shape", "2,3,4,5"], ["--shape", "ROWS,FEATURES"]),
        (["rms_norm", "--layout", "nchw"], ["--layout", "nchw", "nhwc"]),
        (["all", "--out", directory / "file"], ["--out", "file"]),
        (["all", "--seconds", "0"], ["--seconds", "0"]),
        (["accuracy", "--out", directory / "file"], ["--out", "file"]),
        (["accuracy", "--torch", directory / "none"], ["--torch", "none"]),
        (["accuracy", "--torch", directory / "file"], ["--torch", "file"]),
        (["accuracy", "--out", directory, "--torch", "/bin/false"], ["--torch", "/bin/false", "status 1"]),
        (["convolution"], ["bench"]),
    ]:
        done = run(*arguments)
        said = done.stderr + done.stdout
        assert done.returncode > 0, (arguments, done)
        assert all(name in said for name in names), (arguments, names, said)
    assert [path.name for path in directory.iterdir()] == ["file"], "left a file behind"


def main():
    for check in (check_all, check_accuracy, check_refusals):
        with tempfile.TemporaryDirectory() as directory:
            check(pathlib.Path(directory))
    check_ops()


if __name__ == "__main__":
    main()
