"""One log-line family a file.

A parser has `NAME`, `SERVICE` and `parse(record) -> AuthEvent | None`: None means "not mine, or nothing about logins".
`suspicious(text)` says whether a line that `parse` could not read looks like a failed authentication all the same:
those are counted as unparsed, so that a new format shows as a number and never as silence.  Every pattern is
anchored at both ends; an address is read by its position, never by search.

A parser of mail has `NAME` and `read(text, start, end, event) -> bool` instead: it fills the one MailEvent from the line
text[start:end] where that is its own, and makes no object.  Whatever a stranger wrote stands behind what it looks at, or
within an address whose end the quotes tell.
"""
