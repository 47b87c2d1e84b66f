"""Trains and publishes dgrt-mini, a small DiffusionGemma; see README.md for the reading order."""
