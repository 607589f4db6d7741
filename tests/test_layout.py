"""The package's structure: imports point one way, private modules stay private, files and lines are short."""

import ast
from pathlib import Path

import nfd_jax

ROOT = Path(nfd_jax.__file__).parent
ORDER = [
    "_version",
    "names",
    "text",
    "pace",
    "_types",
    "_host",
    "_indexing",
    "_sizes",
    "runtime",
    "programs",
    "checks",
    "parametrization",
    "activations",
    "losses",
    "optimizers",
    "trajectory",
    "problem",
    "noise",
    "observables",
    "_orthogonal",
    "gaussian",
    "history",
    "memory",
    "training",
    "conditional",
    "sharding",
    "finite",
    "limit",
    "data",
    "config",
    "measures",
    "store",
    "sweep",
    "verdicts",
    "report",
    "launch",
    "bench",
    "cli",
    "__main__",
    "__init__",
]


def modules():
    return {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in ROOT.rglob("*.py")}


def house(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(module: str, path: Path):
    """Every module of the package that this one imports, lazily or not; what is only there for type checkers
    aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body
        for inner in ast.walk(child)
    }
    known = modules()
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("nfd_jax"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nfd_jax"):
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in known or f"{deeper}.__init__" in known else node.module


def test_imports_point_one_way():
    wrong = []
    for module, path in modules().items():
        here = house(module)
        if here == "__init__":
            continue
        for target in imports(module, path):
            there = house(target)
            if there not in ("__init__", here) and ORDER.index(there) > ORDER.index(here):
                wrong.append(f"{module} imports {target}")
            if there == "__init__" and target == "nfd_jax":
                continue
    assert not wrong, wrong


def test_every_house_is_in_the_order():
    assert {house(module) for module in modules()} <= set(ORDER)


def test_private_modules_are_imported_inside_their_house_only():
    wrong = []
    for module, path in modules().items():
        for target in imports(module, path):
            parts = target.split(".")
            if (
                len(parts) > 2
                and any(part.startswith("_") and part != "__init__" for part in parts[2:])
                and parts[1] != house(module)
            ):
                wrong.append(f"{module} imports {target}")
    assert not wrong, wrong


def test_no_module_imports_itself_in_a_circle():
    graph = {module: set(imports(module, path)) for module, path in modules().items()}
    package = {module.removesuffix(".__init__"): module for module in graph}
    done, path = set(), []

    def visit(module):
        if module in done:
            return
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        path.append(module)
        for target in graph[module]:
            actual = package.get(target)
            # A package's own __init__ re-exports what its modules hold; they never import it back, which
            # `house` order can't see.
            if actual and actual != "nfd_jax.__init__":
                visit(actual)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_files_and_lines_are_short():
    for path in ROOT.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, f"{path}: {len(lines)} lines"
        long = [i for i, line in enumerate(lines, 1) if len(line) > 110]
        assert not long, f"{path}: lines {long} have more than 110 columns"
