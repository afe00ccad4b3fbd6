"""check_package.py BUILD SOURCE CC CXX: installs BUILD to a temporary prefix, and there builds and runs each program of
examples/ in every way that the documentation names: find_package and pkg-config, shared and static.

CC and CXX are those of BUILD.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

build, source = map(pathlib.Path, sys.argv[1:3])
compiler = {"c": sys.argv[3], "cpp": sys.argv[4]}


def run(*command, env=None):
    done = subprocess.run([str(word) for word in command], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def loads_shared(program):
    return "libequinorm.so" in run("readelf", "-d", program)


with tempfile.TemporaryDirectory() as directory:
    prefix = pathlib.Path(directory, "prefix")
    run("cmake", "--install", build, "--prefix", prefix)
    libraries = next(prefix.rglob("libequinorm.a")).parent
    found_at_run_time = dict(os.environ, LD_LIBRARY_PATH=str(libraries))
    pkg_config = dict(os.environ, PKG_CONFIG_PATH=str(libraries / "pkgconfig"))
    for language in ("c", "cpp"):
        example = source / "examples" / language
        said = set()
        for static in (False, True):
            way = pathlib.Path(directory, f"{language}-{static}")
            run("cmake", "-G", "Ninja", "-S", example, "-B", way, f"-DCMAKE_PREFIX_PATH={prefix}",
                f"-DCMAKE_C_COMPILER={compiler['c']}", f"-DCMAKE_CXX_COMPILER={compiler['cpp']}",
                f"-DEquinorm_USE_STATIC_LIBS={'ON' if static else 'OFF'}")
            run("cmake", "--build", way)
            assert loads_shared(way / "example") != static, f"{way}: the wrong library was linked"
            said.add(run(way / "example"))

            (main,) = example.glob("main.*")
            flags = run("pkg-config", "--cflags", "--libs", *(["--static"] if static else []), "equinorm", env=pkg_config).split()
            standard = ["-std=c11"] if language == "c" else ["-std=c++20"]
            first = ["-Wl,--as-needed", "-l:libequinorm.a"] if static else []
            program = way / "by-pkg-config"
            run(compiler[language], *standard, main, *first, *flags, "-o", program)
            assert loads_shared(program) != static, f"{program}: the wrong library was linked"
            said.add(run(program, env=found_at_run_time))
        assert len(said) == 1, f"the four builds of {example} differ in what they say: {said}"
        print(said.pop())
