"""The architecture, held by reading the code: layers import downwards, and torch loads only where tensors are."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "lowlight_cli"

# Each room's layer. A new room gets its line here, and with it a decision.
LAYERS = {
    "errors": 0,
    "interrupts": 0,
    "settings": 0,
    "atomic": 1,
    "locks": 1,
    "machine": 1,
    "startup": 1,
    "manifest": 1,
    "download": 1,
    "cache": 1,
    "paths": 1,
    "pairs": 1,
    "results": 1,
    "weights_kind": 1,
    "images": 2,
    "buffers": 1,
    "bars": 1,
    "video": 2,
    "device": 2,
    "compiling": 2,
    "parallel": 2,
    "loops": 2,
    "streams": 2,
    "tiling": 2,
    "tone": 2,
    "metrics": 2,
    "sheet": 2,
    "stabilize": 2,
    "degrade": 2,
    "losses": 2,
    "weights_file": 2,
    "backends": 3,
    "enhancer": 4,
    "arrays": 4,
    "batch": 4,
    "comparison": 4,
    "clip": 4,
    "zero_shot": 4,
    "bench": 4,
    "quality": 4,
    "train": 4,
    "report": 4,
    "spread": 4,
    "export": 4,
    "console": 5,
    "terminal": 5,
    "cli": 5,
}
TORCH_FREE = {room for room, layer in LAYERS.items() if layer in (0, 1, 5)} | {
    "images",
    "sheet",
    "__init__",
    "__main__",
}
TERMINAL_ROOMS = {"console", "cli"}


class Import(NamedTuple):
    """One import: the module it names, and whether it runs as soon as its own module is loaded."""

    module: str
    at_load: bool
    where: str


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")), path, at_load=True))


def _imports(node: ast.AST, path: Path, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        where = f"{path.relative_to(PACKAGE.parent)}:{getattr(child, 'lineno', 0)}"
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, at_load, where) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{where}: imports are written in full"
            # `from lowlight_cli import cache` names a module, `from lowlight_cli.cache import fetch` does not.
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (Import(name, at_load, where) for name in names)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from _imports(child, path, at_load=at_load and not later and not for_types)


def rooms_used(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield for every import of our own its room, its full name and its place."""
    for found in imports_of(path):
        package, _, rest = found.module.partition(".")
        room = rest.partition(".")[0]
        if package == "lowlight_cli" and (room in LAYERS or (PACKAGE / f"{room}.py").exists()):
            yield room, found.module, found.where


def test_every_room_has_a_layer() -> None:
    rooms = {room_of(path) for path in modules()} - {"__init__", "__main__"}
    assert rooms <= LAYERS.keys(), "give the new rooms a layer in this test"


def test_each_package_says_what_its_rooms_are_for() -> None:
    for package in (path.parent for path in modules() if path.name == "__init__.py" and path.parent != PACKAGE):
        told = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
        rooms = {path.stem for path in package.glob("*.py")} | {
            path.parent.name for path in package.glob("*/__init__.py")
        }
        silent = {room for room in rooms - {"__init__"} if not re.search(rf"(^|`){room}\b", told, re.MULTILINE)}
        assert not silent, f"{package}: nothing is said of {silent}"


def test_imports_go_downwards() -> None:
    assert sum(1 for path in modules() for _ in rooms_used(path)) > 500  # or what follows looks at nothing
    for path in modules():
        own = room_of(path)
        for room, _, where in rooms_used(path):
            if own in LAYERS and room != own:
                assert LAYERS[room] <= LAYERS[own], f"{where}: {own} may not know {room}"


def test_no_rooms_know_each_other_in_a_circle() -> None:
    known: dict[str, set[str]] = {room: set() for room in LAYERS}
    for path in modules():
        if (own := room_of(path)) in LAYERS:
            known[own] |= {room for room, _, _ in rooms_used(path)} & (LAYERS.keys() - {own})
    TopologicalSorter(known).prepare()  # names a circle, if there is one


def test_leaves_do_not_import_one_another() -> None:
    for path in modules():
        own = room_of(path)
        for room, _, where in rooms_used(path):
            if LAYERS.get(own) == 2 and room != own:
                assert LAYERS[room] < 2, f"{where}: the leaf {own} may not know the leaf {room}"


def test_backends_know_neither_each_other_nor_the_cache() -> None:
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        if parts[0] != "backends" or len(parts) < 3:
            continue
        for room, module, where in rooms_used(path):
            assert room not in ("cache", "download", "manifest"), f"{where}: a backend gets its weights handed"
            other = module.split(".")[2:3]
            if room == "backends" and (PACKAGE / "backends" / other[0]).is_dir():
                assert other[0] == parts[1], f"{where}: {parts[1]} may not know {other[0]}"


def test_rooms_without_tensors_do_not_import_torch_when_they_load() -> None:
    for path in modules():
        if room_of(path) in TORCH_FREE:
            for found in imports_of(path):
                heavy = found.at_load and found.module.partition(".")[0] in ("torch", "torchvision", "safetensors")
                assert not heavy, f"{found.where}: {found.module} belongs where tensors are"


def test_only_the_terminal_rooms_know_typer_and_rich_and_nobody_knows_click() -> None:
    for path in modules():
        for found in imports_of(path):
            library = found.module.partition(".")[0]
            assert library != "click", f"{found.where}: Typer brings its own copy"
            known = library not in ("typer", "rich") or room_of(path) in TERMINAL_ROOMS
            assert known, f"{found.where}: only {' and '.join(sorted(TERMINAL_ROOMS))} draw"


def test_no_room_is_called_after_nothing() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
    for path in (*modules(), *Path(__file__).parent.rglob("*.py")):
        names = {part.casefold().removesuffix(".py") for part in path.relative_to(PACKAGE.parent).parts}
        assert not names & vague, path


def test_torch_stays_out_of_memory() -> None:
    rooms = {room_of(path) for path in modules()} & (TORCH_FREE - {"__init__", "__main__"})
    code = "import importlib, sys\n" + "\n".join(
        f"importlib.import_module('lowlight_cli.{room}'); 'torch' in sys.modules and sys.exit('{room} loads torch')"
        for room in sorted(rooms)
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reader_of_imports_sees_what_it_should() -> None:
    code = (
        "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import e\n"
        "try:\n    import f\nexcept ImportError:\n    pass\nclass K:\n    import g\n"
        "def later():\n    import h\n    class L:\n        import i\n"
    )
    found = {each.module: each.at_load for each in _imports(ast.parse(code), PACKAGE / "x.py", at_load=True)}
    assert found == {"a.b": True, "c.d": True, "e": False, "f": True, "g": True, "h": False, "i": False}
