"""`python -m nfd_jax` is `nfd`."""

from nfd_jax.cli import main

main()
