"""Replies of judges on disk, by the hash of what was asked; threads, actors and runs may share a file."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from framework.errors import RunError, UserError


class Replies:
    """What one judge replied. A row without a reply is a request under way: it counts, for it may be paid for."""

    def __init__(self, path: Path, url: str, model: str, most: int | None) -> None:
        """Make or open the file; there may be `most` replies of this judge, None for any number.

        Raises:
            UserError: it cannot be made, or holds something else.
        """
        self.path, self.most, self.judge = path, most, f"{url} {model}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {path.parent} for a judge's replies: {error.strerror}; set cache") from error
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, judge TEXT NOT NULL, reply TEXT)")

    def get(self, bodies: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The replies that are there, by what was asked."""
        with self._open() as db:
            query = "SELECT reply FROM replies WHERE key = ?"
            found = {body: db.execute(query, (self._key(body),)).fetchone() for body in bodies}
        return {body: json.loads(row[0]) for body, row in found.items() if row and row[0]}

    def reserve(self, bodies: Sequence[str]) -> None:
        """Count requests before they are sent: all, or none where they would be too many.

        Raises:
            RunError: they would.
        """
        with self._open() as db:
            rows = [(self._key(body), self.judge) for body in bodies]
            db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, NULL)", rows)
            (count,) = db.execute("SELECT COUNT(*) FROM replies WHERE judge = ?", (self.judge,)).fetchone()
            if self.most is not None and count > self.most:
                raise RunError(
                    f"judge {self.judge}: {len(bodies)} more calls would make {count}, over most_calls={self.most}; all replies "
                    f"are kept in {self.path}: raise most_calls in the command or in the run's config.yaml"
                )

    def put(self, body: str, reply: dict[str, Any]) -> None:
        """Keep a reply."""
        with self._open() as db:
            row = (self._key(body), self.judge, json.dumps(reply))
            db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)

    def release(self, bodies: Sequence[str]) -> None:
        """Requests that came to nothing are not counted."""
        with self._open() as db:
            rows = [(self._key(body),) for body in bodies]
            db.executemany("DELETE FROM replies WHERE key = ? AND reply IS NULL", rows)

    def _key(self, body: str) -> str:
        return hashlib.sha256(f"{self.judge} {body}".encode()).hexdigest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, which others wait for."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: the judge's replies cannot be read or written ({error}); set cache"
            ) from error
