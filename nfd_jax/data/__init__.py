"""Data sets, their file formats, and the batches of SGD laid out from them."""

from nfd_jax.data._batches import Data, check_data, load_problem_data
from nfd_jax.data._formats import DataError

__all__ = ["Data", "DataError", "check_data", "load_problem_data"]
