"""Owns what is said about a database: its place and its errors in one line, without passwords."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from flowbench.records import FlowbenchError, visible

ADVICE = "write sqlite:///results.db or postgresql://user@host/name"
NOT_OPENED = "cannot be opened: does its folder exist, and may you write there?"
READ_ONLY = "is read-only; make it writable or choose another file"
REFUSED = "does not let you in: is the password right, and are you one of its users?"
ABSENT = "is not there: is its server running, and does a database of that name exist?"
CUT = "was cut off from its server; try again when that is back"

# What a driver says, and what the user can do about it.
SYMPTOMS = {
    "unable to open": NOT_OPENED,
    "not a database": "is not an SQLite database; choose another file",
    "malformed": "is damaged; restore it from a backup or choose another file",
    "readonly": READ_ONLY,
    "read-only transaction": READ_ONLY,
    "is full": "has no space left on its disk: free some space, then run the same command again",
    "No space left": "finds no space on its disk: free some space, then run the same command again",
    "disk I/O error": "cannot be read or written: its disk or network folder fails, or is full",
    "locked": "is kept locked by another process; try again when that has ended",
    "too large": "cannot hold a number beyond 64 bits",
    "surrogates not allowed": "cannot hold text that is not Unicode",
    "authentication failed": REFUSED,
    "no password supplied": REFUSED,
    "permission denied": "does not let you write: ask its owner for the right to create tables",
    "Connection refused": ABSENT,
    "No such file or directory": ABSENT,
    "could not translate host name": ABSENT,
    "FATAL:  database": ABSENT,
    "terminating connection": CUT,
    "closed the connection": CUT,
    "the connection is": CUT,
    "deadlock detected": "was written by two that waited for each other; start again",
}
NO_ROOM = (SYMPTOMS["is full"], SYMPTOMS["No space left"])
SECRETS = ("password", "sslpassword")
SECRET = re.compile(rf"({'|'.join(SECRETS)})=[^&\s]*", re.IGNORECASE)


def complaint(error: BaseException) -> str:
    """One printable line about `error` that follows the name of the database."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    said = visible(said)
    for symptom, words in SYMPTOMS.items():
        if symptom in said:
            return words
    return f"refused: {said}"


@contextmanager
def told(place: object, kind: type[FlowbenchError] = FlowbenchError) -> Iterator[None]:
    """Raises `kind` in one line that begins with `place`, in the place of a driver's error."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OverflowError) as error:
        raise kind(f"{place} {complaint(error)}") from error


def shown(url: URL) -> str:
    """The URL without what only its owner may know."""
    hidden = {name: "hidden" for name in url.query if name.lower() in SECRETS}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def shown_text(text: str) -> str:
    """What cannot be read as a URL, without what might be a password in it."""
    return visible(SECRET.sub(r"\1=hidden", text.rpartition("@")[2]))
