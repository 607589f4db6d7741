"""From a file to a config, or to every problem in it with its line.

The text is checked in `_yaml`, each value by its field in `_sections`, what values imply for one another in
`_rules`, and the data files, here alone, by `data.check_data`.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nfd_jax.config import _yaml
from nfd_jax.config._errors import ConfigError, Problems
from nfd_jax.config._read import read
from nfd_jax.config._sections import ProblemConfig
from nfd_jax.config._sweep import SweepConfig, validate
from nfd_jax.data import DataError, check_data, reads_folder

EMBEDDED = (
    256  # samples that any two classes of digits have to spare, so that nobody waits for a look at them
)


def load_config(path: str | os.PathLike[str], overrides: str | Iterable[str] = ()) -> SweepConfig:
    """The config in a YAML file, with overrides "a.b=v" (v in YAML) applied; reads data files to check them.

    Relative paths in it are resolved against the file's folder. Raises ConfigError with every problem there
    is.

    >>> config = nfd.load_config("configs/quickstart.yaml", ["seeds=2", "finite.widths=[64, 128]"])
    >>> config.seeds, config.finite.widths
    (2, (64, 128))
    """
    file, overrides = Path(path), [overrides] if isinstance(overrides, str) else overrides
    try:
        if not file.is_file():  # neither a folder, nor a pipe to wait at
            wrong = "not a file" if file.exists() else "no such file"
            raise ConfigError([f"{file}: {wrong}, allowed: the path of a YAML file"])
        with file.open("rb") as stream:
            data = stream.read(_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}, allowed: the path of a YAML file"]) from None
    return read(data, str(file), overrides, file.parent, _with_data)


def _with_data(tree: dict[str, Any]) -> tuple[SweepConfig | None, Problems]:
    config, problems = validate(tree)
    return config, problems + list(_data_problems(tree, config))


def _data_problems(tree: dict[str, Any], config: SweepConfig | None) -> Iterator[tuple[str, str]]:
    try:
        own = ProblemConfig.model_validate(tree.get("problem") or {})
    except ValidationError:
        return
    checked = set()
    for variant, varied in config.expand().items() if config else [("", None)]:
        problem = varied.problem if varied else own
        samples = max(problem.batch_size, problem.pool or 0)
        needs = (problem.dataset, problem.data_dir, problem.classes, samples, problem.loss)
        if needs in checked or (problem.dataset == "digits" and samples <= EMBEDDED):
            continue
        checked.add(needs)
        try:
            check_data(problem)
        except (DataError, OSError) as error:
            key = "data_dir" if problem.data_dir and reads_folder(problem.dataset) else "dataset"
            yield f"variants.{variant}.problem.{key}" if variant else f"problem.{key}", str(error)
