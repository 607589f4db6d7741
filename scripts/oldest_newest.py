"""Does the package work with the oldest and the newest versions that pyproject.toml allows?

    python scripts/oldest_newest.py [oldest] [newest]

Each in a virtual environment of its own: `pip install` of the package with its test extra, a small sweep from
YAML with its report, and the tests that touch the libraries most. The exit status is that of the first that
fails. Wants a network or a local index, and some minutes.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWEEP = """\
name: small
seeds: 2
problem: {dataset: digits, classes: [0, 1], steps: 2, batch_size: 2}
finite: {widths: [16, 32], depths: [2, 4, 8]}
limit: {depth_steps: 16}
"""
TESTS = ("store", "config", "data", "dense", "limit", "optimizers", "report", "layout", "kept_programs")


def oldest() -> list[str]:
    """The least version of each requirement, pinned; of packages that must go together, as they are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["test"]
    return [line.replace(">=", "==") for line in (*project["dependencies"], *extra)]


def check(name: str, pins: list[str]) -> int:
    """Installs and tries; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = str(place / "venv" / "bin" / "python")
        (place / "pins.txt").write_text("\n".join(pins))
        (place / "small.yaml").write_text(SWEEP)
        files = [str(ROOT / "tests" / f"test_{test}.py") for test in TESTS]
        for command in (
            [python, "-m", "pip", "install", "-q", "-c", str(place / "pins.txt"), "-e", f"{ROOT}[test]"],
            [python, "-m", "pip", "list", "--format=freeze"],
            [python, "-m", "nfd_jax", "run", str(place / "small.yaml"), "--out", str(place / "out")],
            [python, "-m", "pytest", "-o", "addopts=-m 'not long'", "-q", "-p", "no:cacheprovider", *files],
        ):
            print(f"{name}: {' '.join(command[1:4])} …", flush=True)
            status = subprocess.run(command, cwd=ROOT, check=False).returncode
            if status:
                print(f"{name}: failed")
                return status
    print(f"{name}: works")
    return 0


def main() -> int:
    """The exit status."""
    asked = sys.argv[1:] or ["oldest", "newest"]
    if unknown := set(asked) - {"oldest", "newest"}:
        print(f"received {', '.join(unknown)}, allowed: oldest, newest", file=sys.stderr)
        return 2
    return next((s for name in asked if (s := check(name, oldest() if name == "oldest" else []))), 0)


if __name__ == "__main__":
    sys.exit(main())
