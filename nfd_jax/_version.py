"""The version: read from here by the package, its command line and its build."""

__version__ = "0.2.0"
