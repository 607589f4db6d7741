"""Sweeps: a grid of networks and limits from a config, planned and computed batch by batch."""
