"""From measurements to verdicts: pure functions of results."""
