"""check_symbols.py LIBRARY ARCHIVE INCLUDE_DIR: the shared libequinorm shows what its headers mark EQUINORM_API, all of
it and nothing else; the static one holds no scalar reference.
"""
import pathlib
import re
import subprocess
import sys

library, archive, include = *sys.argv[1:3], pathlib.Path(sys.argv[3])

functions, classes = set(), set()  # a class is inline: what it leaves in the library is up to the compiler
for header in include.rglob("*.h*"):
    text = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*", "", header.read_text(), flags=re.DOTALL | re.MULTILINE)
    classes.update(re.findall(r"(?:class|struct)\s+EQUINORM_API\s+(\w+)", text))
    functions.update(re.findall(r"(?<!class )(?<!struct )EQUINORM_API\s[^;{]*?(\w+)\(", text))


def defined(*arguments):
    listing = subprocess.run(["nm", "--defined-only", "-C", *arguments], check=True, capture_output=True, text=True)
    return re.findall(r"^[0-9a-f]+ \w (.+)", listing.stdout, re.MULTILINE)


exported = {}
for symbol in defined("-D", library):
    of_class = re.fullmatch(r"(?:typeinfo|typeinfo name|vtable) for equinorm::(\w+)", symbol)
    in_cpp = re.match(r"(?:[\w:]+ )*equinorm::(\w+)(?:\[abi:\w+\])?(?:<[^()]*>)?\(", symbol)
    found = of_class or in_cpp or re.fullmatch(r"(equinorm_\w+)", symbol)
    exported[symbol] = found.group(1) if found else None

undeclared = sorted(symbol for symbol, name in exported.items() if name not in functions | classes)
missing = sorted(functions - set(exported.values()))
for symbol in undeclared:
    print(f"{library} exports {symbol}, which no header marks EQUINORM_API")
for name in missing:
    print(f"{library} does not export {name}, which a header marks EQUINORM_API")
held = defined(archive)
references = [symbol for symbol in held if "equinorm::reference::" in symbol]
for symbol in references:
    print(f"{archive} holds {symbol}, which is for tests")
print(f"{len(exported)} symbols exported, {len(functions)} functions declared")
sys.exit(bool(undeclared or missing or references or not exported or not held))
