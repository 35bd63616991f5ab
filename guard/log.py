"""What the daemon says while it runs: one line an event, text for people or JSON for machines.

It goes to stderr, where journald and Docker take it from.  Bans and ends of bans are events with fields, so that
nobody needs a regular expression to read us.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger, Processor

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(style: str = "auto", level: str = "info") -> None:
    """Set up the log.  `style` is text, json, or auto: text on a terminal, else JSON."""
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger() -> FilteringBoundLogger:
    """Return the log; `configure` may be called again at a reload."""
    log: FilteringBoundLogger = structlog.get_logger()
    return log
