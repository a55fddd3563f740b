"""Rows of a file by a key, whatever their order, in bounded memory."""

import sqlite3
from collections.abc import Iterable


class Grouped:
    """Keys and texts, in a temporary database that spills to disk and is gone when it is closed."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self.database = sqlite3.connect("", isolation_level=None)
        for statement in ("PRAGMA journal_mode=OFF", "BEGIN", "CREATE TABLE rows (key TEXT, text TEXT)"):
            self.database.execute(statement)
        self.database.executemany("INSERT INTO rows VALUES (?, ?)", rows)
        self.database.execute("CREATE INDEX by_key ON rows (key)")
        self.database.execute("CREATE TABLE taken (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def take(self, key: str) -> list[str] | None:
        """The texts of a key in their order. None if the key was taken before."""
        if not self.database.execute("INSERT OR IGNORE INTO taken VALUES (?)", (key,)).rowcount:
            return None
        found = self.database.execute("SELECT text FROM rows WHERE key = ? ORDER BY rowid", (key,))
        return [text for (text,) in found]

    def left(self) -> list[str]:
        """At most a hundred of the keys that nobody took."""
        query = "SELECT DISTINCT key FROM rows WHERE key NOT IN (SELECT key FROM taken) LIMIT 100"
        return [key for (key,) in self.database.execute(query)]

    def close(self) -> None:
        self.database.close()
