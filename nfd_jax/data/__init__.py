"""Data sets, their file formats, and the batches of SGD laid out from them."""

from nfd_jax.data._batches import Data, check_data, data_of, input_dim, load_problem_data
from nfd_jax.data._datasets import DATASETS, Dataset, class_names, reads_folder
from nfd_jax.data._files import DataError

__all__ = [
    "DATASETS",
    "Data",
    "DataError",
    "Dataset",
    "check_data",
    "class_names",
    "data_of",
    "input_dim",
    "load_problem_data",
    "reads_folder",
]
