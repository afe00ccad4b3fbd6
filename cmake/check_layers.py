"""Holds the house together: check_layers.py ROOT fails on any #include "…" in include/, src/, bench/ or app/ that points upwards.

check_layers.py --self-test shows on a tree of its own that it can fail.
"""
import pathlib
import re
import sys
import tempfile

# What each folder may include beside itself. ops/<op> counts as one folder with the others' doors shut: it sees no other op,
# but for what norms share (SHARED, which are no ops).
BELOW = {
    "core": set(),
    "simd": {"core"},
    "parallel": {"core"},
    "reduce": {"core", "simd", "parallel"},
    "kernels": {"core", "simd", "reduce"},
    "ops": {"core", "simd", "parallel", "reduce", "kernels"},
    "capi": set(),  # the public C++ headers are enough for it
    "data": {"core", "parallel"},
    "nn": {"core", "simd", "parallel", "reduce", "ops", "data"},
    "audit": {"core", "simd", "parallel", "reduce", "ops", "data", "nn"},
    "bench": {"core", "simd", "parallel", "reduce", "kernels", "ops", "data", "nn"},
    "app": {"core", "simd", "parallel", "reduce", "ops", "data", "nn", "audit", "bench"},
}
SHARED = ("rows", "jvp")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def problem(root, file, included):
    """What is wrong with `file` (a path below the root) including `included`, or None."""
    if ".." in included.split("/"):
        return "paths start from src/, include/ or this folder"
    folder, *rest = file.parts[1:] if file.parts[0] == "src" else file.parts
    target, *target_rest = included.split("/")
    if folder == "include":
        return None if target == "equinorm" else "a public header includes public headers only"
    if target == "equinorm" or (root / file.parent / included).exists():  # public headers, and files beside this one
        return None
    if (root / "bench" / included).exists():  # the one folder beside src/ whose files are named from within
        target = "bench"
    if target not in BELOW:
        return f"there is no folder {target}"
    if folder == "ops":
        if target == "ops" and target_rest[0] not in (rest[0], *SHARED):
            return f"op {rest[0]} includes op {target_rest[0]}"
        if file.stem == "reference" and (target != "ops" or pathlib.Path(included).stem != "reference"):
            return "a reference sees public headers and references only: it shares nothing with the kernels"
    return None if target == folder or target in BELOW[folder] else f"{folder} stands below {target}"


def check(root):
    problems = []
    for top in ("include", "src", "bench", "app"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".hpp", ".cpp", ".h"):
                file = path.relative_to(root)
                for included in INCLUDE.findall(path.read_text()):
                    what = problem(root, file, included)
                    if what:
                        problems.append(f'{file}: #include "{included}": {what}')
    return problems


def self_test():
    cases = [  # file, what it includes, whether that is a fault
        ("src/core/a.hpp", "core/b.hpp", False),
        ("src/core/a.hpp", "equinorm/status.hpp", False),
        ("src/core/a.hpp", "simd/b.hpp", True),
        ("src/parallel/a.cpp", "simd/b.hpp", True),
        ("src/data/a.cpp", "nn/b.hpp", True),
        ("src/capi/a.cpp", "equinorm/b.h", False),
        ("src/capi/a.cpp", "core/b.hpp", True),
        ("src/nn/a.cpp", "data/b.hpp", False),
        ("src/nn/layers/a.cpp", "audit/b.hpp", True),
        ("src/audit/claims/a.cpp", "ops/batch_norm/reference.hpp", False),
        ("src/ops/x/a.cpp", "ops/x/b.hpp", False),
        ("src/ops/x/a.cpp", "ops/y/b.hpp", True),
        ("src/ops/x/a.cpp", "ops/rows/b.hpp", False),
        ("src/ops/rows/a.hpp", "ops/jvp/b.hpp", False),
        ("src/ops/rows/a.hpp", "ops/x/b.hpp", True),
        ("src/ops/jvp/a.hpp", "ops/x/b.hpp", True),
        ("src/ops/x/reference.cpp", "ops/rows/b.hpp", True),
        ("src/ops/x/reference.cpp", "ops/x/reference.hpp", False),
        ("src/ops/x/reference.cpp", "ops/rows/reference.hpp", False),
        ("src/ops/x/reference.cpp", "core/b.hpp", True),
        ("src/ops/x/reference.cpp", "ops/x/kernels.hpp", True),
        ("src/ops/x/reference.cpp", "reduce/b.hpp", True),
        ("include/equinorm/a.hpp", "core/b.hpp", True),
        ("app/main.cpp", "main.cpp", False),
        ("app/main.cpp", "missing.hpp", True),
        ("src/core/a.hpp", "../nn/b.hpp", True),
        ("bench/peers/a.cpp", "ops/x/b.hpp", False),
        ("bench/peers/a.cpp", "audit/b.hpp", True),
        ("app/main.cpp", "audit/b.hpp", False),
        ("src/nn/a.cpp", "app/b.hpp", True),
        ("src/nn/a.cpp", "elsewhere/b.hpp", True),
    ]
    for file, included, fault in cases:
        with tempfile.TemporaryDirectory() as name:
            path = pathlib.Path(name) / file
            path.parent.mkdir(parents=True)
            path.write_text(f'#include <vector>\n\n#include "{included}"\n')
            assert bool(check(pathlib.Path(name))) == fault, (file, included)


if sys.argv[1] == "--self-test":
    self_test()
else:
    found = check(pathlib.Path(sys.argv[1]))
    print("\n".join(found) or "every arrow points downwards")
    sys.exit(bool(found))
