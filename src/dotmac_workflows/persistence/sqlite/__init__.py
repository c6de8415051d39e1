"""Journals in one SQLite file: durable at power loss, shared by the processes of one machine, no server.

From the outside in: `store` is the class that users hold; `calls` is the way from an event loop to a thread and back;
`writer` holds the two threads, one that writes (and commits what waits together) and one that reads; `statements` is
all the SQL on rows; `schema` opens the file and refuses what it should not touch; `lock` keeps processes from
committing beside a checkpoint; `log` notices a damaged write-ahead log; `failures` says in words what SQLite says in
codes.
"""

from .store import SQLitePersistence

__all__ = ["SQLitePersistence"]
