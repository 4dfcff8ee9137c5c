"""Connections of Redis' library, closed in the way that we need: at once, whatever the other side does."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, parse_url

from claw.secret import Secret


class _Abrupt(Connection):
    """A connection that closes without waiting for the other side, which may be the one that hangs.

    The library waits for it, and under TLS for the other side's word; the transport would stay open for as long.
    """

    async def disconnect(self, *args: Any, **options: Any) -> None:
        writer = self._writer
        await super().disconnect(*args, **options | {"nowait": True})
        if writer is not None:
            writer.transport.abort()
            await asyncio.sleep(0)  # The loop closes the socket in its next turn.


class _AbruptTls(_Abrupt, SSLConnection):
    pass


def pool(url: Secret, connect_timeout: float, **options: Any) -> ConnectionPool:
    """Return the connections to `url`; `connect_timeout` in seconds, `options` are the library's."""
    given: dict[str, Any] = {**parse_url(url.reveal())}
    # The library names a class for TLS only.
    kind = _AbruptTls if given.pop("connection_class", None) is not None else _Abrupt
    return ConnectionPool(
        kind,
        # Ours hold for a batch as a whole. The library's is kept by `asyncio.wait_for`, which costs a task for each
        # write and, in Python 3.11, loses a cancellation that meets the end of the write: `stop` would wait for ever.
        socket_timeout=None,
        socket_connect_timeout=connect_timeout,
        protocol=2,
        driver_info=None,
        **given,
        **options,
    )
