"""The configs that come with the source tree: `nfd run quickstart` finds them by name."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name → file, in the order of names; empty where the package was installed without its source tree."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def summary(file: Path) -> str:
    """The first line of a config's comment, "" where it begins with none."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline().strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_config(name: Path) -> Path:
    """The file meant: a path that exists, else the shipped config of that name, else the path as it is."""
    plain = name.name == str(name)
    return name if name.exists() or not plain else shipped_configs().get(name.name, name)
