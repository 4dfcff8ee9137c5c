"""Errors of Redis and of its library in our words: what happened, and whether only a person can help."""

from __future__ import annotations

import re
import ssl
from typing import Final

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError

from claw.errors import StoreError, StoreRefusedError
from claw.store.codec import copy_error

CAUSE_MAX: Final = 160
"""Characters of an error that is not in MESSAGES."""
MESSAGES: Final = {
    "WRONGPASS": "Redis refuses the user or the password",
    "NOAUTH": "Redis asks for a password",
    "NOPERM": "the user may not do this in Redis; claw needs its keys, its channel and scripts",
    "READONLY": "this Redis is a read-only replica",
    "MASTERDOWN": "this Redis is a replica that has lost its master",
    "OOM": "Redis has no memory left (maxmemory)",
    "MISCONF": "Redis takes no writes, for it cannot save to its disk",
    "LOADING": "Redis is still loading its data",
    "BUSY": "Redis is busy with somebody's script",
    "NOREPLICAS": "Redis takes no writes, for it has too few replicas",
    "CLUSTERDOWN": "the Redis cluster is down",
    "ITEMSGONE": "the settings are gone from Redis, though nobody deleted them; `claw owner --reset` begins anew",
    "MOVED": "this node of a Redis cluster does not hold claw's keys; name the node that does",
    "ASK": "the Redis cluster is moving claw's keys",
}
"""By the codes of Redis' errors; in 6.2 they stand within what a script's error says."""
RECONNECT: Final = frozenset({"READONLY", "MASTERDOWN", "MOVED", "LOADING"})
"""After these another server may stand behind the same name: the next connection looks it up anew."""
PERMANENT: Final = frozenset({"WRONGPASS", "NOAUTH", "NOPERM", "MOVED"})
"""Only a person can cure these."""

_LIBRARY: Final = {
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "MovedError": "MOVED",
    "AskError": "ASK",
}
"""The library takes the code out of those errors that it has a class for."""
_CODE: Final = re.compile(rf"(?<![A-Z])({'|'.join(MESSAGES)})(?![A-Z])")

_REFUSED_IN_SCRIPT: Final = re.compile("ACL failure in script|user executing the script can't")


def code_of(error: Exception) -> str:
    """Return the code of a server's error; empty where it has none that we know."""
    if not isinstance(error, RedisError):
        return ""
    # By name: not every version of the library has every class.
    known = _LIBRARY.get(type(error).__name__)
    if not isinstance(error, ResponseError | LostError):
        return known or ""
    match = _CODE.search(str(error))
    # A command that the user may not give within a script is told without the code, in other words by each version.
    refused = "NOPERM" if _REFUSED_IN_SCRIPT.search(str(error)) else ""
    return known or (match[1] if match else refused)


def translate(error: Exception, where: str) -> StoreError:
    """Return the error in our words, a new one for each caller; `where` is the server as it may be shown."""
    if isinstance(error, StoreError):
        return copy_error(error)
    code = code_of(error)
    kind = StoreRefusedError if code in PERMANENT else StoreError
    fresh = kind(f"{MESSAGES.get(code) or cause_of(error)} ({where})")
    fresh.__cause__ = error
    return fresh


def cause_of(error: BaseException) -> str:
    """Return the error as a short clause; only of a server's own answer its text is taken."""
    if isinstance(error, ResponseError):
        # A server that does not know AUTH repeats what it was given, the password.
        said = " ".join(str(error).split()).partition(", with args")[0]
        return f"Redis refuses: {said[:CAUSE_MAX]}"
    if isinstance(error, TimeoutError | LateError):
        return "Redis does not answer"
    # The library wraps what the system said.
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ssl.SSLError):
            return f"TLS with Redis fails: {getattr(chain, 'verify_message', '') or chain.reason or 'no TLS there'}"
        if isinstance(chain, OSError) and chain.strerror:
            return f"Redis cannot be reached: {chain.strerror}"
        chain = chain.__cause__ or chain.__context__
    return "the connection to Redis broke"
