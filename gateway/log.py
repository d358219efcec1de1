"""How the gateway logs: JSON lines for the journal, readable lines on a terminal, and never a secret.

Nothing here is called per reading: what was read is in the buffer, the log says what happened to us.
"""

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "(hidden)"
_SECRET_WORDS = frozenset(
    ("token", "password", "passwd", "passphrase", "secret", "key", "authorization", "cookie", "credential", "tag")
)
"""Words that make a log key secret, in the singular: `password`, `links.cs.key`, `tags`, `parentIdTag`."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_IN_TEXT = (
    (re.compile(r"(\w://[^/\s:@]*:)[^@\s/]+(?=@)"), rf"\1{HIDDEN}"),
    (re.compile(r"((?:token|password|key|secret)=)[^&\s\"']+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(\"(?:i|parentI)dTag\"\s*:\s*\")[^\"]*"), rf"\1{HIDDEN}"),
    (re.compile(r"('(?:i|parentI)dTag'\s*:\s*')[^']*"), rf"\1{HIDDEN}"),
)
LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", out: TextIO | None = None) -> None:
    """Set up structlog and the libraries' own logging; `out` is stderr unless said otherwise."""
    stream = out or sys.stderr
    renderer: Processor
    if stream.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    logging.raiseExceptions = False


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: values under secret keys, and secrets inside texts, are hidden."""
    return {name: HIDDEN if _is_secret(name) else _clean(value) for name, value in event.items()}


class _Bridge(logging.Handler):
    """What a library logs goes the same way as our own lines, redaction included."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        error = record.exc_info[1] if record.exc_info else None
        if type(error).__module__ == "aiohttp.http_exceptions":
            # Who sends something else than HTTP to a port does not fill the journal with it.
            logger.warning(record.getMessage(), library=record.name, why=type(error).__name__)
            return
        logger.log(record.levelno, record.getMessage(), library=record.name, exc_info=record.exc_info or None)


def _clean(value: object) -> object:
    match value:
        case str():
            for pattern, instead in _IN_TEXT:
                value = pattern.sub(instead, value)
            return value
        case Mapping():
            return {name: HIDDEN if _is_secret(str(name)) else _clean(held) for name, held in value.items()}
        case list() | tuple():
            return [_clean(held) for held in value]
        case None | bool() | int() | float():
            return value
        case _:
            return _clean(str(value))


@lru_cache(maxsize=512)
def _is_secret(name: str) -> bool:
    return any(word.lower() in _SECRET_WORDS or word.lower()[:-1] in _SECRET_WORDS for word in _WORD.findall(name))


def _json(event: EventDict, **_options: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
