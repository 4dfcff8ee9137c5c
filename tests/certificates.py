"""Certificates that vouch for themselves, made with openssl, for servers of tests that speak TLS."""

from __future__ import annotations

import ipaddress
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """A certificate that is its own CA, and its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs to show it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


def certificate(folder: Path, host: str) -> Certificate:
    """A certificate for `host`, a name or an address, good for two days. Skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    try:
        named = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        named = f"DNS:{host}"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName={named}"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", str(made.key), "-out", str(made.cert)]
    subprocess.run(command, check=True, capture_output=True)
    return made
