"""What a backend says when it cannot be had."""

from __future__ import annotations


class BackendError(RuntimeError):
    """The backend that was asked for cannot be had; the message says what is missing and how to install it."""
