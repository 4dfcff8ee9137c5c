"""Proxy and certificates of the environment hold for the gateway and for the WebSocket, over real TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stream import vectors
from tests.stream.dingtalk import DingTalk, Peer

HOST = "dingtalk.test"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for a host that exists nowhere, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, cert, both = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "both.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()  # noqa: SIM905 - a command
    named = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([openssl, *asked, *named], check=True, capture_output=True)
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_by_a_connect_proxy(certificate: Path, trusted: bool) -> None:
    """HTTPS_PROXY carries registration and WebSocket by CONNECT, and SSL_CERT_FILE decides whom they trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked: list[str] = []

    async def greet(peer: Peer) -> None:
        await peer.push(vectors.robot())

    async with DingTalk(context) as dingtalk:
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
            environ["SSL_CERT_FILE"] = str(certificate)
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
