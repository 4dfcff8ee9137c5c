"""Proxy and certificates of the environment hold for the gateway and for the WebSocket, over real TLS."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.certificates import certificate
from tests.stream import vectors
from tests.stream.dingtalk import DingTalk, Peer

HOST = "dingtalk.test"


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_by_a_connect_proxy(tmp_path: Path, trusted: bool) -> None:
    """HTTPS_PROXY carries registration and WebSocket by CONNECT, and SSL_CERT_FILE decides whom they trust."""
    made = certificate(tmp_path, HOST)
    asked: list[str] = []

    async def greet(peer: Peer) -> None:
        await peer.push(vectors.robot())

    async with DingTalk(made.context()) as dingtalk:
        dingtalk.greet = greet
        dingtalk.host = HOST

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.split(b"\r\n")[0].decode())
            onward, back = await asyncio.open_connection("127.0.0.1", dingtalk.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, back), _pump(onward, writer))

        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
        environ = kept | {"HTTPS_PROXY": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        if trusted:
            environ["SSL_CERT_FILE"] = str(made.cert)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.stream.tls_robot", f"https://{HOST}:{dingtalk.port}"),
            env=environ,
            cwd=Path(__file__).parents[2],
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        server.close()
        await server.wait_closed()
        tunnel = f"CONNECT {HOST}:{dingtalk.port} HTTP/1.1"
        if trusted:
            assert process.returncode == 0, errors.decode()
            assert asked == [tunnel, tunnel]
            assert (await dingtalk.peers[0].ack())["headers"]["messageId"] == "push-1"
        else:
            assert b"GatewayError: the gateway cannot be reached" in errors
            assert asked == [tunnel]
            assert not dingtalk.registrations


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
