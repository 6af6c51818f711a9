"""The one error that is shown without a traceback; imports nothing."""

from __future__ import annotations

__all__ = ["ClrlError"]


class ClrlError(Exception):
    """A fault that is the user's to mend: one line, shown without a traceback.

    Attributes:
        exit_code: 1 in general, 2 bad configuration, 3 missing data or ROM, 75 preempted.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
