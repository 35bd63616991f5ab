"""The position of a source that delivers records: whatever its server calls the place, as text."""

from __future__ import annotations

from typing import NamedTuple


class Cursor(NamedTuple):
    """A place between two records.  Every chunk beside it ends with a whole line, so nothing is ever read back."""

    text: str

    def rewind(self, count: int) -> Cursor:
        """Return itself.  Raises ValueError where a line is unfinished: a record cannot be cut."""
        if count:
            raise ValueError(f"{count} bytes of an unfinished line beside the cursor {self.text!r}")
        return self

    def dump(self) -> str:
        """Return it as text for the store."""
        return self.text
