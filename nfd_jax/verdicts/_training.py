"""What training curves say: gaps between backward weights, transfer of learning rates, sizes of updates."""

from nfd_jax.verdicts._coordinate_check import coordinate_check
from nfd_jax.verdicts._gap import DROPPED, GAP_MARGIN, LEARNED, REASONS, gap_constants, relative_gap
from nfd_jax.verdicts._transfer import transfer

__all__ = [
    "DROPPED",
    "GAP_MARGIN",
    "LEARNED",
    "REASONS",
    "coordinate_check",
    "gap_constants",
    "relative_gap",
    "transfer",
]
