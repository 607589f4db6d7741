"""How tests are compiled."""

QUICK_TO_RUN = {"xla_backend_optimization_level": "1"}
"""For a test that runs for longer than it compiles."""
