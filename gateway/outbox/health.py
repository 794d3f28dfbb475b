"""What is wrong with the store: a disk without room, a file that failed, files that were moved aside."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.errors import StoreError, Unavailable
from gateway.outbox import damage
from gateway.outbox.failures import Failure, failure_of, words_of
from gateway.outbox.schema import connect_reader
from gateway.outbox.space import Space

_log = logging.getLogger("gateway.store")


class Health:
    """
    Knows what is wrong.

    Args:
        notices: The stores that were moved aside. ``told`` is called once, on any thread, when the file fails.
    """

    def __init__(self, path: Path, space: Space, notices: Iterable[damage.Notice], told: Callable[[], None]) -> None:
        self._path = path
        self._space = space
        self._told = told
        self._stopping = threading.Event()
        self.notices = list(notices)
        #: Why the file cannot be used any more.
        self.failure: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why hits are refused."""
        return self.failure or self._space.trouble

    def failed(self, error: BaseException, failure: Failure) -> None:
        """Remember that the file cannot be used any more, and have it checked at the next start."""
        if self.failure is not None:
            return
        self.failure = f"The store {self._path} is {failure} ({words_of(error)})."
        damage.write_state(self._path, "suspect")
        remedy = "The process ends; the next one checks the file. See that the disk is sound."
        _log.critical("store_failed", extra={"failure": failure, "detail": words_of(error), "remedy": remedy})
        self._told()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """
        Read beside the writer, and notice damage.

        Raises:
            Unavailable: The store cannot be read.
        """
        try:
            yield
        except (sqlite3.Error, StoreError, Unavailable) as error:
            cause = error.__cause__ or error
            if failure_of(cause) == "damaged":
                self.failed(cause, "damaged")
            if isinstance(error, Unavailable):
                raise
            raise Unavailable("store_failed", "The store cannot be read.", retry_after_s=5) from error

    def check_beside(self) -> None:
        """Check a large file on a thread of its own, while it is in use."""
        threading.Thread(target=self._check, name="outbox-check", daemon=True).start()

    def _check(self) -> None:
        try:
            with closing(connect_reader(self._path)) as reader:
                reader.set_progress_handler(self._stopping.is_set, 100_000)
                problem = damage.check(reader, thorough=False)
        except (sqlite3.Error, StoreError) as error:
            problem = words_of(error)
        if self._stopping.is_set():
            return
        if problem is None:
            _log.info("checked")
        else:
            self.failed(StoreError(problem), "damaged")

    def stop(self) -> None:
        """End the check."""
        self._stopping.set()
