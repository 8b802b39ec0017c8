"""What the server logs while third-party clients are served."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class ServerLog(logging.Handler):
    """Warnings and worse, and what is said of clients that connect."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self.clients: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.complaints.append(f"{record.levelname} {record.name}: {line}")
        elif line.startswith("client "):
            self.clients.append(line)


@contextmanager
def listening() -> Iterator[ServerLog]:
    """The log of all servers of this process from here on."""
    log = ServerLog()
    clients = logging.getLogger("occ.server")
    level = clients.level
    clients.setLevel(logging.INFO)
    logging.getLogger().addHandler(log)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(log)
        clients.setLevel(level)
