"""What can go wrong in a distillation."""

from __future__ import annotations


class DistillError(Exception):
    """An input, a setting or a target that will not do; the text says what was expected and what was found."""
