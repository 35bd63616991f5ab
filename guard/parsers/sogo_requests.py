"""SOGo's access lines and errors.

    ADDRESS "POST /SOGo/so/alice/Mail/0/folderINBOX/uids HTTP/1.0" 200 1801/240 0.031 - - 128K - 11
    [ERROR] <0x0x5597cb345e60[SOGoSQLUserProfile]> could not run SQL ...

ADDRESS is what a proxy passes on and may be a stranger's text; SOGo writes paths percent-encoded.  So an access line is
read from its end.  mailcow's channel turns `/` into `_`.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import ERROR, REQUEST, MailEvent
from guard.parsers._grammar import micros, stands

NAME: Final = "sogo_requests"

_WEB: Final = 0  # in model.WEB
_DAV: Final = 1
_EAS: Final = 2


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a REQUEST or an ERROR."""
    if start < end and ord(text[start]) == 91:  # "["
        if (
            text.find("[ERROR] ", start, start + 8) != start
            and text.find("[FATAL] ", start, start + 8) != start
        ):
            return False
        event.kind = ERROR
        return True
    if not stands(" - ", text, text.rfind(" - ", start, end), end):
        return False
    quote: i64 = text.rfind('" ', start, end)
    if quote < 0 or quote + 9 > end:
        return False
    status = ord(text[quote + 2]) - 48
    if not 1 <= status <= 5 or ord(text[quote + 5]) != 32:
        return False
    taken: i64 = text.find(" ", quote + 6, end)
    begin: i64 = text.rfind(' "', start, quote)
    path: i64 = text.find(" ", begin + 2, quote) + 1
    if taken < 0 or begin < 0 or path < 1:
        return False
    event.micros, _ = micros(text, taken + 1, end)
    if event.micros < 0:
        return False
    event.kind, event.count, event.label = REQUEST, status, _WEB
    if text.find("Microsoft-Server-ActiveSync", path, quote) > 0:
        event.label = _EAS
    elif stands("SOGo/dav", text, path + 1, quote) or stands("SOGo_dav", text, path + 1, quote):
        event.label = _DAV
    return True
