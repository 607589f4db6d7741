"""Benchmarks of the package against peers and limits of the machine; `nfd bench` runs them all."""
