"""Data sets, their file formats, and the batches of SGD laid out from them."""

from nfd_jax.data._batches import HELDOUT, Data, ProblemData, check_data, input_dim, load_problem_data
from nfd_jax.data._datasets import DATASETS, Dataset, class_names, reads_folder
from nfd_jax.data._formats import DataError

__all__ = [
    "DATASETS",
    "HELDOUT",
    "Data",
    "DataError",
    "Dataset",
    "ProblemData",
    "check_data",
    "class_names",
    "input_dim",
    "load_problem_data",
    "reads_folder",
]
