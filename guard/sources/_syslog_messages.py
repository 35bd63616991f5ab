r"""Syslog messages out of bytes, and the one line that each of them is.  Pure: no socket, no clock.

On a stream each message is framed in one of two ways, told apart message by message (RFC 6587, 3.4):

* octet counting: `117 <22>1 2026-11-23T17:31:14Z mx ...`; the text may hold newlines
* a trailer: `<22>Nov 23 17:31:14 mx ...\n`, or a NUL in the newline's place, as syslog(3) of the GNU C library ends them

What a message holds is somebody's text.  Its newlines are written `#012` and its NULs `#000`, as rsyslog does, so that
one message is one line and no part of it is taken for another's header.  `<PRI>` before an RFC 3164 header says nothing
to us and is left out; a header without a host (syslog(3) and Docker's default format write none) gets `host`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = (
    64 * 1024
)  # bytes of a message; a longer one is dropped: cut, its text could feign another end

_BLANK: Final = b"\r\n\0"  # what senders put after a message
# RFC 3164, 4.1.  Searched in whole chunks, where every message stands behind a newline.
_BSD: Final = rb"[A-Z][a-z]{2} [ 0-3]\d [0-2]\d:[0-5]\d:[0-6]\d "
_PRI: Final = re.compile(rb"\n<\d{1,3}>(?=" + _BSD + rb")")
_NO_HOST: Final = re.compile(rb"\n<\d{1,3}>(" + _BSD + rb")(?=[\w./+-]{1,100}(?: ?\[\d{1,10}\])?: )")
# RFC 6587, 3.4.1.  The `<` of the message keeps a line that begins with a number from being taken for it.
_COUNT: Final = re.compile(rb"([1-9]\d{0,6}) (?=<)")
_COUNT_LATER: Final = re.compile(rb"\n[1-9]\d{0,6} (?=<)")
_TRAILER: Final = re.compile(rb"[\n\0]")


def lines_of(messages: Sequence[bytes], host: bytes) -> bytes:
    """Return messages as lines, each with its newline; one that says nothing is none."""
    if not messages:
        return b""
    text = b"\n".join((b"", *messages))
    if b"\n\n" in text or text.endswith(b"\n") or b"\0" in text or text.count(b"\n") != len(messages):
        kept = [message.rstrip(_BLANK) for message in messages]
        text = b"".join(b"\n" + _escaped(message) for message in kept if message)
        if not text:
            return b""
    if _NO_HOST.search(text):
        text = _NO_HOST.sub(rb"\n\1%s " % host, text)
    return _PRI.sub(b"\n", text)[1:] + b"\n"


def _escaped(message: bytes) -> bytes:
    return message.replace(b"\n", b"#012").replace(b"\0", b"#000")


class Frames:
    """Cuts one stream into messages.  Holds at most an unfinished one, `LONGEST` bytes and its count."""

    __slots__ = ("_dropping", "_host", "_rest", "_skip", "too_long")

    def __init__(self, host: bytes) -> None:
        self.too_long = 0  # messages dropped
        self._host = host
        self._rest = b""
        self._skip = 0  # bytes left of a counted message that is dropped
        self._dropping = False  # up to the trailer

    def feed(self, data: bytes) -> bytes:
        """Take what has arrived; return the lines that are whole now, each with its newline."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        elif self._dropping:
            end = _TRAILER.search(data)
            if end is None:
                return b""
            self._dropping = False
            data = data[end.end() :]
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        one_by_one = b"\0" in data or _COUNT.match(data) or _COUNT_LATER.search(data)
        messages = self._mixed(data) if one_by_one else self._trailed(data)
        return lines_of(messages, self._host)

    @property
    def unfinished(self) -> bool:
        """Is a message begun that has not ended?  Where the stream ends so it is lost: half of it could feign another."""
        return bool(self._rest.rstrip(_BLANK) or self._skip or self._dropping)

    def _trailed(self, data: bytes) -> list[bytes]:
        """Cut at the newlines: what most streams are, and fast."""
        messages = data.split(b"\n")
        self._keep(messages.pop())
        if messages and max(map(len, messages)) > LONGEST:
            fit = [message for message in messages if len(message) <= LONGEST]
            self.too_long += len(messages) - len(fit)
            return fit
        return messages

    def _mixed(self, data: bytes) -> list[bytes]:
        """Look at each message how it is framed."""
        messages: list[bytes] = []
        start, size = 0, len(data)
        while start < size:
            count = _COUNT.match(data, start)
            if count is not None:
                begin = count.end()
                end = begin + int(count[1])
                if end - begin > LONGEST:
                    self.too_long += 1
                    self._skip = max(0, end - size)
                elif end > size:
                    break
                else:
                    messages.append(data[begin:end])
                start = end
                continue
            trailer = _TRAILER.search(data, start)
            if trailer is None:
                break
            end = trailer.start()
            if end - start > LONGEST:
                self.too_long += 1
            else:
                messages.append(data[start:end])
            start = trailer.end()
        self._keep(data[start:])
        return messages

    def _keep(self, rest: bytes) -> None:
        """Hold an unfinished message; one that is too long already is dropped up to its trailer."""
        if len(rest) > LONGEST and not _COUNT.match(rest):
            self.too_long += 1
            self._dropping = True
        else:
            self._rest = rest
