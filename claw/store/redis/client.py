"""The link to Redis: one connection for calls and one for hints. The only module that imports Redis' library.

The order of events: `start` begins two tasks. A call is queued before its method first awaits, so the order of calls
is the order in which Redis does them. The task `store-redis-calls` takes all that is queued as one batch, connects
where it must (and says hello: version, schema, scripts), writes the batch in one go and reads the replies; meanwhile
the next batch gathers. The task `store-redis-hints` listens to what other replicas publish, and comes back by itself:
what it misses is made up for by those who ask. `stop` ends both tasks and closes both connections.

A connection that breaks leaves open whether a call was done. Where it had served before, the batch is made once more
on a new one, under the same tokens (redis_scripts.py), so that nothing is done twice; a failover is followed in the
same way. Whatever else goes wrong fails the calls with StoreError, at the latest after CALL_TIMEOUT_S; a call that has
waited for so long behind others fails without being made.

A caller that is cancelled stops waiting; its call is made all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import secrets
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError

from claw.clock import Clock
from claw.errors import StoreError, StoreRefusedError, StoreSchemaError
from claw.retry import full_jitter
from claw.secret import Secret
from claw.store.redis.scripts import ALL, HELLO, SCHEMA, Script

log: Final = logging.getLogger(__name__)

Word: TypeAlias = str | bytes | int
"""An argument of a command."""
Facts: TypeAlias = dict[str, str]
"""What Redis tells of itself: the fields of its `INFO`."""

CALL_TIMEOUT_S: Final = 5.0
"""Seconds for one batch, connecting included; then its calls fail. DingTalk waits for an ack for much longer, and a
lease outlasts several such failures."""
HELLO_TIMEOUT_S: Final = 3.0
"""Seconds for connecting and saying hello."""
CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds for what is still queued when the link is closed."""
BATCH_MAX: Final = 128
"""Calls made in one go: one script takes Redis some 50 microseconds, so nobody else waits for long."""
HINT_PING_S: Final = 15.0
"""Seconds of silence after which the connection of the hints is tried, so that a dead one does not stay."""
HINT_BACKOFF_S: Final = (0.1, 5.0)
"""Base and ceiling of the waits before that connection is opened anew."""
OLDEST: Final = (6, 2)
"""The oldest Redis that is served; Valkey tells a `redis_version` above it."""
CAUSE_MAX: Final = 160
"""Characters of an error that is not in `_WORDS`."""

_WORDS: Final = {
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
    "MOVED": "this node of a Redis cluster does not hold claw's keys; name the node that does",
    "ASK": "the Redis cluster is moving claw's keys",
}
"""The codes of Redis' errors; in 6.2 they stand within what a script's error says."""
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
_CODE: Final = re.compile(rf"(?<![A-Z])({'|'.join(_WORDS)})(?![A-Z])")
_ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "MOVED", "LOADING"})
"""After these another server may stand behind the same name: the next call looks it up anew."""
_HOPELESS: Final = frozenset({"WRONGPASS", "NOAUTH", "NOPERM", "MOVED"})
"""Only a person can cure these."""


class Call:
    """A script with its arguments, and who waits for its reply.

    `orphaned` is called with the reply where the caller was cancelled meanwhile.
    """

    __slots__ = ("future", "orphaned", "script", "since", "words")

    def __init__(
        self,
        script: Script,
        words: Sequence[Word],
        future: asyncio.Future[Any],
        orphaned: Callable[[Any], None] | None,
    ) -> None:
        self.script = script
        self.words = words
        self.future = future
        self.orphaned = orphaned
        self.since = future.get_loop().time()

    def settle(self, reply: Any) -> None:
        if self.future.done():
            if self.orphaned is not None and not isinstance(reply, Exception):
                self.orphaned(reply)
        elif isinstance(reply, Exception):
            self.future.set_exception(reply)
        else:
            self.future.set_result(reply)


class Link:
    """Calls scripts at the server of `url`, with `prefix` as their key. `on_hint` gets each word that is published.

    `time`, in milliseconds, takes the place of the server's in tests.
    """

    def __init__(
        self,
        url: Secret,
        prefix: str,
        on_hint: Callable[[bytes], None],
        *,
        clock: Clock,
        time: Callable[[], int] | None = None,
        read_only: bool = False,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._on_hint = on_hint
        self._clock = clock
        self._time = time
        self._read_only = read_only
        self._name = secrets.token_hex(8)
        self._calls = 0
        self._queue: deque[Call] = deque()
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connection: Connection | None = None
        self._accepts = False
        self.facts: Facts = {}
        """What the server told when we last connected."""
        self.proved_at: float | None = None
        """Monotonic seconds of the last batch that went well; None where none was yet, or where one failed since."""
        self._served = False

    @property
    def where(self) -> str:
        """The server as it may be shown."""
        parts = urlsplit(self._url.reveal())
        return f"{parts.hostname}:{parts.port or 6379}"

    async def start(self) -> None:
        """Begin to serve. Raises StoreRefusedError or StoreSchemaError where only a person can help.

        A server that cannot be reached is no error: calls fail until it can.
        """
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                self._connection = await self._connected()
        except Exception as error:
            told = self._told(error)
            if not told.retryable:
                raise told from error
            log.error("store cannot be reached yet", extra={"cause": str(told)})
        self._accepts = True
        self._tasks = [
            asyncio.create_task(self._serve_for_ever(), name="store-redis-calls"),
            asyncio.create_task(self._listen_for_ever(), name="store-redis-hints"),
        ]

    async def stop(self) -> None:
        """Make the calls that are queued, within CLOSE_TIMEOUT_S, then close. Call it as often as you like."""
        self._accepts = False
        self._some.set()
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        try:
            await asyncio.wait(tasks[:1], timeout=CLOSE_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for call in self._queue:
                call.settle(StoreError("the store is closed"))
            self._queue.clear()

    def submit(
        self, script: Script, *words: Word, orphaned: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """Queue a call. Its future raises StoreError where it fails. Raises StoreError where the link is stopped."""
        if not self._accepts:
            raise StoreError("the store is closed")
        self._calls += 1
        now = -1 if self._time is None else self._time()
        call = Call(
            script, (f"{self._name}.{self._calls}", now, *words), asyncio.get_running_loop().create_future(), orphaned
        )
        self._queue.append(call)
        self._some.set()
        return call.future

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _serve_for_ever(self) -> None:
        batch: list[Call] = []
        try:
            while True:
                if not self._queue:
                    if not self._accepts:
                        return
                    self._some.clear()
                    await self._some.wait()
                    continue
                self._fail_late_ones()
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
                if batch:
                    self._settle(batch, await self._replies(batch))
                batch = []
        finally:
            for call in batch:
                call.settle(StoreError("the store was closed while it was asked"))
            await self._drop()

    def _fail_late_ones(self) -> None:
        """While a server hangs more calls may come than are tried: they would wait for longer and longer."""
        late = asyncio.get_running_loop().time() - CALL_TIMEOUT_S
        while self._queue and self._queue[0].since < late:
            self._queue.popleft().settle(StoreError("the store does not answer"))

    def _settle(self, batch: list[Call], replies: list[Any]) -> None:
        failures = [reply for reply in replies if isinstance(reply, Exception)]
        if not failures:
            if self._served and self.proved_at is None:
                log.info("store answers again")
            self._served, self.proved_at = True, self._clock.monotonic()
        else:
            if self.proved_at is not None or not self._served:
                log.error("store failed", extra={"cause": str(self._told(failures[0])), "calls": len(failures)})
            self._served, self.proved_at = True, None
        for call, reply in zip(batch, replies, strict=True):
            # One error for one caller: an exception that several tasks raise mixes up their tracebacks.
            call.settle(self._told(reply) if isinstance(reply, Exception) else reply)

    async def _replies(self, batch: list[Call]) -> list[Any]:
        """A reply or an error for each call, in their order."""
        replies: list[Any] = [StoreError("not asked")] * len(batch)
        left = list(range(len(batch)))
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                for last in (False, True):
                    proven = self._connection is not None
                    try:
                        if self._connection is None:
                            self._connection = await self._connected()
                        found = await _exchange(self._connection, [self._command(batch[index]) for index in left])
                    except (LostError, LateError, OSError) as error:
                        await self._drop()
                        found = [error] * len(left)
                    for index, reply in zip(left, found, strict=True):
                        replies[index] = reply
                    left = [index for index in left if proven and await self._may_repeat(replies[index])]
                    if last or not left:
                        break
        except Exception as error:  # noqa: BLE001 - whatever it was, each caller is told, and the next batch is tried
            await self._drop()
            for index in left:
                replies[index] = error
        return replies

    def _command(self, call: Call) -> tuple[Word, ...]:
        return ("EVALSHA", call.script.sha, 1, self._prefix, *call.words)

    async def _may_repeat(self, reply: Any) -> bool:
        """Whether another try may end better: on a new connection, or with the scripts loaded anew."""
        if isinstance(reply, NoScriptError):  # Somebody emptied the scripts' cache; a new connection loads them.
            await self._drop()
            return True
        if isinstance(reply, ResponseError):
            elsewhere = _code(reply) in _ELSEWHERE
            if elsewhere:
                await self._drop()
            return elsewhere
        return isinstance(reply, LostError | LateError | OSError)

    # --- connections ------------------------------------------------------------------------------------------------

    def _new_connection(self) -> Connection:
        parts = urlsplit(self._url.reveal())
        kind = SSLConnection if parts.scheme == "rediss" else Connection
        return kind(
            host=unquote(parts.hostname or ""),
            port=parts.port or 6379,
            db=int(parts.path.strip("/") or 0),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            # Our own time limits hold for a batch as a whole; the library's would hold for each of its reads.
            socket_timeout=None,
            socket_connect_timeout=HELLO_TIMEOUT_S,
            protocol=2,
            driver_info=None,
        )

    async def _connected(self) -> Connection:
        """A connection to a server that was greeted. Raises StoreRefusedError, StoreSchemaError, the library's."""
        connection = self._new_connection()
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await _open(connection)
                hello = ("EVAL", HELLO.text, 1, self._prefix, "hello", -1, int(self._read_only))
                loads = [("SCRIPT", "LOAD", script.text) for script in ALL]
                self._greeted(*await _exchange(connection, [("INFO",), hello, *loads]))
        except BaseException:
            await _close(connection)
            raise
        return connection

    def _greeted(self, info: Any, schema: Any, *loaded: Any) -> None:
        """Look at what the server said. Raises where it, or what it holds, is not for us."""
        for reply in (schema, *loaded):
            if isinstance(reply, Exception):
                raise reply
        # A user that may not ask for it is no hindrance.
        self.facts = {} if isinstance(info, Exception) else _facts(info)
        if self.facts and _version(self.facts) < OLDEST:
            found = self.facts.get("redis_version", "")
            raise StoreRefusedError(f"Redis {found} is too old, 6.2 or later is needed ({self.where})")
        if schema > SCHEMA:
            raise StoreSchemaError(f"the store has schema {schema}, this claw knows {SCHEMA} at most")

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection)

    def _told(self, error: Exception) -> StoreError:
        """The error in our words, a new one each time."""
        if isinstance(error, StoreError):
            return type(error)(*error.args)
        code = _code(error)
        cause = _WORDS.get(code) or _cause(error)
        told = StoreRefusedError if code in _HOPELESS else StoreError
        fresh = told(f"{cause} ({self.where})")
        fresh.__cause__ = error
        return fresh

    # --- hints -------------------------------------------------------------------------------------------------------

    async def _listen_for_ever(self) -> None:
        tries = 0
        while True:
            connection = self._new_connection()
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    await _open(connection)
                    await connection.send_command("SUBSCRIBE", f"{self._prefix}:hints")
                    await connection.read_response()
                tries = 0
                await self._listen(connection)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("no hints from the store", extra={"cause": _cause(error)})
            finally:
                await _close(connection)
            tries += 1
            await asyncio.sleep(full_jitter(tries, base=HINT_BACKOFF_S[0], ceiling=HINT_BACKOFF_S[1]))

    async def _listen(self, connection: Connection) -> None:
        """Until the connection breaks. Once it is open somebody may have been missed, hence a first hint of our own."""
        self._on_hint(b"news")
        tried = False
        while True:
            said = await connection.read_response(timeout=HINT_PING_S)
            if said is None:
                if tried:
                    raise LostError("no answer to a ping")
                await connection.send_command("PING")
            elif said[0] == b"message":
                self._on_hint(said[2])
            tried = said is None


async def _open(connection: Connection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call] # The library's is not annotated.


async def _exchange(connection: Connection, commands: Sequence[Sequence[Word]]) -> list[Any]:
    """Write all commands, then read a reply or an error for each. Raises the library's errors of a lost connection."""
    await connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(timeout=math.inf))
        except ResponseError as error:
            replies.append(error)
    return replies


async def _close(connection: Connection) -> None:
    """Close without waiting for the other side, which may be the one that hangs."""
    writer = connection._writer  # The library has no way to abort.
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)
    if writer is not None:
        writer.transport.abort()
        await asyncio.sleep(0)  # The loop closes the socket in its next turn.


def _facts(info: bytes) -> Facts:
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _version(facts: Facts) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", facts.get("redis_version", "0"))[:2])


def _code(error: Exception) -> str:
    """The code of a server's error; empty where it has none that we know."""
    if not isinstance(error, RedisError):
        return ""
    known = _LIBRARY.get(type(error).__name__)
    match = _CODE.search(str(error)) if isinstance(error, ResponseError | LostError) else None
    return known or (match[1] if match else "")


def _cause(error: BaseException) -> str:
    """An error as a short clause; only of a server's own answer its text is taken."""
    if isinstance(error, ResponseError):
        # A server that does not know AUTH repeats what it was given, the password.
        said = " ".join(str(error).split()).partition(", with args")[0]
        return f"Redis refuses: {said[:CAUSE_MAX]}"
    if isinstance(error, TimeoutError | LateError):
        return "Redis does not answer"
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ssl.SSLError):
            return f"TLS with Redis fails: {getattr(chain, 'verify_message', '') or chain.reason or 'no TLS there'}"
        if isinstance(chain, OSError) and chain.strerror:
            return f"Redis cannot be reached: {chain.strerror}"
        chain = chain.__cause__ or chain.__context__
    return "the connection to Redis broke"
