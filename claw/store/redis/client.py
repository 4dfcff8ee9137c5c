"""Calls of scripts and hints, over Redis' library: it knows URLs, TLS, AUTH, pipelines and pub/sub; the queue is ours.

Order of events: `start` begins two tasks. A call is queued before its method first awaits, so the order of calls is the
order in which Redis does them. The task `claw.store.redis.calls` takes all that is queued as one batch, sends it as one
pipeline and resolves each call; meanwhile the next batch gathers. Each new connection is greeted first (version,
schema, scripts). The task `claw.store.redis.hints` listens to what other replicas publish. It reconnects by itself;
missed hints are covered by polling. `stop` ends both tasks and closes both connections.

A connection that breaks leaves open whether a call was done. Where it had served before, the batch is sent once more
on a new one, under the same tokens (scripts/prelude.lua), so that nothing is done twice; a failover is followed in the
same way. Whatever else goes wrong fails the calls with StoreError, at the latest after CALL_TIMEOUT_S; a call that has
waited for so long behind others fails without being sent.

Cancelling a caller does not cancel its call.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError

from claw.clock import Clock
from claw.errors import StoreError, StoreRefusedError, StoreSchemaError
from claw.retry import full_jitter
from claw.secret import Secret
from claw.store.ports import LOST_REMEDY
from claw.store.redis.connection import pool
from claw.store.redis.errors import RECONNECT, cause_of, code_of, translate
from claw.store.redis.scripts import ALL, HELLO, PROBE, PROVING, SCHEMA, Script
from claw.store.redis.server import EVICTS, OLDEST, ServerInfo, parse_info, risks_of, version_of
from claw.store.values import Risk

log: Final = logging.getLogger(__name__)

Arg: TypeAlias = str | bytes | int
"""An argument of a script."""

CALL_TIMEOUT_S: Final = 5.0
"""Seconds for one batch, connecting included; then its calls fail. DingTalk waits for an ack for much longer, and a
lease outlasts several such failures."""
HELLO_TIMEOUT_S: Final = 3.0
"""Seconds for connecting and for the greeting, each."""
CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds for what is still queued when the client is stopped."""
BATCH_MAX: Final = 128
"""Calls sent at once: one script takes Redis some 50 microseconds, so no other client waits for long."""
BATCH_BYTES: Final = 4 << 20
"""Bytes of arguments after which a batch ends: they are packed anew, all at once, here and in Redis' buffer."""
HINT_PING_S: Final = 15.0
"""Seconds of silence after which the connection of the hints is tried, so that a dead one does not stay."""
HINT_BACKOFF_S: Final = (0.1, 5.0)
"""Base and ceiling of the waits before that connection is opened anew."""
ACL_RULES: Final = (
    "resetkeys ~{prefix}* resetchannels &{prefix}:hints +@read +@write +@connection +@pubsub +@scripting +time +info"
)
"""What claw's user needs in Redis, as `ACL SETUSER` takes it."""


class Call:
    """A script with its arguments, or a plain command, and the future that its caller waits for.

    `on_abandoned` gets the reply where the caller was cancelled meanwhile.
    """

    __slots__ = ("args", "future", "on_abandoned", "script", "since")

    def __init__(
        self,
        script: Script | None,
        args: Sequence[Arg],
        future: asyncio.Future[Any],
        on_abandoned: Callable[[Any], None] | None,
    ) -> None:
        self.script = script
        self.args = args
        self.future = future
        self.on_abandoned = on_abandoned
        self.since = future.get_loop().time()

    def words(self, prefix: str) -> tuple[Arg, ...]:
        """Return what is sent. A script goes by its hash: `register_script` would ask Redis each time if it has it."""
        return (*self.args,) if self.script is None else ("EVALSHA", self.script.sha, 1, prefix, *self.args)

    @property
    def size(self) -> int:
        """Length of what is large among the arguments."""
        return sum(len(arg) for arg in self.args if isinstance(arg, str | bytes))

    def resolve(self, reply: Any) -> None:
        if self.future.done():  # Cancelled: the call was made all the same.
            if self.on_abandoned is not None and not isinstance(reply, Exception):
                self.on_abandoned(reply)
        elif isinstance(reply, Exception):
            self.future.set_exception(reply)
        else:
            self.future.set_result(reply)


class RedisClient:
    """Calls scripts at the server of `url`, with `prefix` as their key. `on_hint` gets each hint that is published.

    With `read_only` the greeting leaves an empty Redis empty. `time`, in milliseconds, takes the place of the server's
    in tests.
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
        self.prefix = prefix
        self._on_hint = on_hint
        self._clock = clock
        self._time = time
        self._read_only = read_only
        self._token = secrets.token_hex(8)
        """Sets the tokens of this client's calls apart from those of others."""
        self._calls = 0
        self._queue: deque[Call] = deque()
        self._is_queued = asyncio.Event()
        self._accepts = False
        self._tasks: list[asyncio.Task[None]] = []
        self._redis = Redis(connection_pool=pool(url, HELLO_TIMEOUT_S, redis_connect_func=self._greet))
        self._connected = False
        """A connection was greeted, and has not broken since as far as we know."""
        self._pubsub = Redis(connection_pool=pool(url, HELLO_TIMEOUT_S))
        options = self._redis.connection_pool.connection_kwargs
        self.where = f"{options['host']}:{options.get('port', 6379)}"
        """The server as it may be shown."""
        self.server_info: ServerInfo = {}
        """What the server told when we last connected."""
        self.store_id: str | None = None
        """The random part of what this process found here; None: it has not found anything yet."""
        self.lost = False
        """What was here is gone, and nothing was settled since."""
        self.proved_at: float | None = None
        """Monotonic seconds of the last write that went well; None where none did yet, or where a call failed since."""
        self._failing = False
        """A call has failed, and no write has gone well since: reading alone proves nothing."""

    async def start(self) -> None:
        """Begin to serve. Raises StoreRefusedError or StoreSchemaError where only a person can help.

        A server that cannot be reached is no error: calls fail until it can.
        """
        # The batches' own connection is opened now, so that what only a person can cure is told at the start.
        connections = self._redis.connection_pool
        try:
            await connections.release(await connections.get_connection())  # type: ignore[no-untyped-call]
            if not self._read_only:
                self._refuse_eviction()
                await self._use_rights()
        except Exception as error:
            await self._drop()
            translated = translate(error, self.where)
            if code_of(error) == "NOPERM":
                rules = ACL_RULES.format(prefix=self.prefix)
                user = connections.connection_kwargs.get("username") or "default"
                translated = StoreRefusedError(f"{translated}; give it these by: ACL SETUSER {user} {rules}")
            if not translated.retryable:
                raise translated from error
            log.error("store cannot be reached yet", extra={"cause": str(translated)})
        self._accepts = True
        self._tasks = [
            asyncio.create_task(self._serve(), name="claw.store.redis.calls"),
            asyncio.create_task(self._listen_for_ever(), name="claw.store.redis.hints"),
        ]

    def _refuse_eviction(self) -> None:
        # It would take the coldest key: the owner. Without INFO we cannot know.
        if Risk.EVICTS in risks_of(self.server_info):
            raise StoreRefusedError(EVICTS.format(policy=self.server_info["maxmemory_policy"], where=self.where))

    async def _use_rights(self) -> None:
        """Use each right of the user once. Raises the server's NOPERM where one is missing.

        A user without channels stores, answers and then fails at the ack, message after message: a check that only
        connects would find nothing wrong.
        """
        call = Call(PROBE, (f"{self._token}.0", -1), asyncio.get_running_loop().create_future(), None)
        replies = await self._send([call])
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.pipeline_execute_command("PUBLISH", f"{self.prefix}:hints", b"news")  # type: ignore[no-untyped-call]
        replies += await pipeline.execute(raise_on_error=False)
        try:
            async with self._pubsub.pubsub() as pubsub, asyncio.timeout(HELLO_TIMEOUT_S):
                await pubsub.subscribe(f"{self.prefix}:hints")
                await pubsub.get_message(timeout=None)
        except RedisError as error:
            replies.append(error)
        # Other errors (a full memory, a replica) pass: they are no right that is missing, and `check` tells of them.
        for reply in replies:
            if isinstance(reply, Exception) and code_of(reply) == "NOPERM":
                raise reply

    async def stop(self) -> None:
        """Make the calls that are queued, within CLOSE_TIMEOUT_S, then close. May be called again."""
        self._accepts = False
        self._is_queued.set()
        tasks, self._tasks = self._tasks, []
        try:
            if tasks:
                # The task of the calls ends by itself when its queue is empty; that of the hints only by `cancel`.
                await asyncio.wait(tasks[:1], timeout=CLOSE_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for call in self._queue:
                call.resolve(StoreError("the store is closed"))
            self._queue.clear()
            await self._drop()
            await self._pubsub.connection_pool.disconnect()

    async def ask_memory(self) -> ServerInfo:
        """Ask how Redis is set up to use its memory. Raises StoreError; StoreRefusedError where we may not ask."""
        if not self._accepts:
            raise StoreError("the store is closed")
        future = asyncio.get_running_loop().create_future()
        info = await self._enqueue(Call(None, ("INFO", "memory"), future, None))
        return {name: str(value) for name, value in info.items()}  # The library has parsed it.

    def note_identity(self, store_id: str, lost: int) -> None:
        """Take what a script has told of the store: whose it is, and whether it stands in the place of a lost one."""
        # Without an id it is one of an older claw, or was emptied a moment ago: the next cleaning gives it another.
        self.store_id = store_id or self.store_id or ""
        # Told once for each loss, not with each reply that repeats it.
        was_lost, self.lost = self.lost, bool(lost)
        if self.lost and not was_lost:
            log.warning("the store that was here is gone", extra={"server": self.where, "remedy": LOST_REMEDY})

    def submit(
        self, script: Script, *args: Arg, on_abandoned: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """Queue a call. Its future raises StoreError where it fails. Raises StoreError where the client is stopped."""
        if not self._accepts:
            raise StoreError("the store is closed")
        self._calls += 1
        now = -1 if self._time is None else self._time()
        future = asyncio.get_running_loop().create_future()
        return self._enqueue(Call(script, (f"{self._token}.{self._calls}", now, *args), future, on_abandoned))

    def _enqueue(self, call: Call) -> asyncio.Future[Any]:
        # Not a coroutine: the call is queued before the caller first awaits, so calls keep their order.
        self._queue.append(call)
        self._is_queued.set()
        return call.future

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Send batch after batch, until stopped and nothing is queued."""
        batch: list[Call] = []
        try:
            while self._queue or self._accepts:
                self._is_queued.clear()
                if not self._queue:
                    await self._is_queued.wait()
                self._fail_late_calls()
                batch = self._next_batch()
                if batch:
                    self._resolve(batch, await self._replies(batch))
                batch = []
        finally:
            for call in batch:
                call.resolve(StoreError("the store was closed while it was asked"))

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        # One call at least, whatever its size: it would wait for ever otherwise.
        while self._queue and len(batch) < BATCH_MAX and size < BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += batch[-1].size
        return batch

    def _fail_late_calls(self) -> None:
        # While a server hangs more calls may come than are sent: they would wait for longer and longer.
        late = asyncio.get_running_loop().time() - CALL_TIMEOUT_S
        while self._queue and self._queue[0].since < late:
            self._queue.popleft().resolve(StoreError("the store does not answer"))

    def _resolve(self, batch: list[Call], replies: list[Any]) -> None:
        failures = [reply for reply in replies if isinstance(reply, Exception)]
        if failures:
            if not self._failing:  # Once for an outage, not once for each batch of it.
                cause = str(translate(failures[0], self.where))
                log.error("store failed", extra={"cause": cause, "calls": len(failures)})
            self._failing, self.proved_at = True, None
        elif any(call.script is not None and call.script.sha in PROVING for call in batch):
            if self._failing:
                log.info("store takes writes again")
            self._failing, self.proved_at = False, self._clock.monotonic()
        for call, reply in zip(batch, replies, strict=True):
            call.resolve(translate(reply, self.where) if isinstance(reply, Exception) else reply)

    async def _replies(self, batch: list[Call]) -> list[Any]:
        """Return a reply or an error for each call, in their order."""
        replies: dict[Call, Any] = {}
        left = batch
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                for is_last in (False, True):
                    # Only a connection that has served before may have been cut while it was idle, or have a new
                    # server behind it by now. Where a fresh one fails the next one would, too.
                    proven = self._connected
                    replies.update(zip(left, await self._try(left), strict=True))
                    left = [call for call in left if proven and _may_repeat(replies[call])]
                    if is_last or not left:
                        break
                    await self._drop()
        except Exception as error:  # noqa: BLE001 - whatever it was, each caller is told, and the next batch is tried
            await self._drop()
            replies.update(dict.fromkeys(left, error))
        return [replies[call] for call in batch]

    async def _try(self, calls: Sequence[Call]) -> list[Any]:
        try:
            return await self._send(calls)
        except (LostError, LateError, OSError) as error:
            # What was read so far is lost, too: no call of this batch is known to be done.
            await self._drop()
            return [error] * len(calls)

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        """Send all calls in one go. Raises what the library does where the connection breaks."""
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.pipeline_execute_command(*call.words(self.prefix))  # type: ignore[no-untyped-call]
        return await pipeline.execute(raise_on_error=False)

    async def _drop(self) -> None:
        self._connected = False
        await self._redis.connection_pool.disconnect()

    async def _greet(self, connection: Connection) -> None:
        """Log in, and look at the server; the library calls this for each new connection.

        Raises StoreRefusedError or StoreSchemaError where the server, or what it holds, is not for us.
        """
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await connection.on_connect()
                identity = (int(self._read_only), secrets.token_hex(8), self.store_id or "")
                hello = ("EVAL", HELLO.text, 1, self.prefix, "hello", -1, *identity)
                loads = [("SCRIPT", "LOAD", script.text) for script in ALL]
                self._judge(*await _exchange(connection, [("INFO",), hello, *loads]))
        except BaseException:
            # The library closes it after its own errors only, and would hand it out ungreeted the next time.
            await connection.disconnect()
            raise
        self._connected = True

    def _judge(self, info: Any, about: Any, *loaded: Any) -> None:
        for reply in (about, *loaded):
            if isinstance(reply, Exception):
                raise reply
        # A user that may not ask for INFO is no hindrance.
        self.server_info = {} if isinstance(info, Exception) else parse_info(info)
        if self.server_info and version_of(self.server_info) < OLDEST:
            found = self.server_info.get("redis_version", "")
            raise StoreRefusedError(f"Redis {found} is too old, 6.2 or later is needed ({self.where})")
        schema, store_id, lost = about
        if schema > SCHEMA:
            raise StoreSchemaError(f"the store has schema {schema}, this claw knows {SCHEMA} at most")
        self.note_identity(store_id.decode(), lost)

    # --- hints -------------------------------------------------------------------------------------------------------

    async def _listen_for_ever(self) -> None:
        tries = 0
        while True:
            try:
                async with self._pubsub.pubsub() as pubsub:
                    async with asyncio.timeout(HELLO_TIMEOUT_S):
                        await pubsub.subscribe(f"{self.prefix}:hints")
                        await pubsub.get_message(timeout=None)
                    tries = 0  # Subscribed: the server is well, whatever ends this connection.
                    await self._listen(pubsub)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("no hints from the store", extra={"cause": cause_of(error)})
            tries += 1
            await asyncio.sleep(full_jitter(tries, base=HINT_BACKOFF_S[0], ceiling=HINT_BACKOFF_S[1]))

    async def _listen(self, pubsub: Any) -> None:
        """Hand on hints until the connection breaks."""
        # Before the subscription was open hints may have been missed, hence a first one of our own.
        self._on_hint(b"news")
        pinged = False
        while True:
            # The library connects anew when the connection breaks, and waits for the server's answer without a limit.
            async with asyncio.timeout(HINT_PING_S + HELLO_TIMEOUT_S):
                message = await pubsub.get_message(timeout=HINT_PING_S)
            if message is None:
                if pinged:
                    raise LostError("no answer to a ping")
                await pubsub.ping()
            elif message["type"] == "message":
                self._on_hint(message["data"])
            pinged = message is None


def _may_repeat(reply: Any) -> bool:
    """Return whether another try may end better: on a new connection, which loads the scripts anew, too."""
    if isinstance(reply, ResponseError):
        # No script: somebody emptied the cache.
        return isinstance(reply, NoScriptError) or code_of(reply) in RECONNECT
    return isinstance(reply, LostError | LateError | OSError)


async def _exchange(connection: Connection, commands: Sequence[Sequence[Arg]]) -> list[Any]:
    """Write all commands, then read a reply or an error for each. Raises the library's errors of a lost connection."""
    await connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies
