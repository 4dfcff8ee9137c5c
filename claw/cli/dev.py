"""`claw dev`: the real service against a local DingTalk, in one command and one process, without any account.

Order of events: free ports are chosen; the environment is laid over with the emulator's addresses (and with its small
model, unless the environment names a real one); the emulator starts; the same `App` as in `claw run` serves against
it; the addresses are printed; Ctrl-C drains claw first and stops the emulator last.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

from claw import __version__
from claw.app import App, Exit, serve
from claw.config import files, reader
from claw.emulator import Emulator
from claw.errors import SettingsError

HOST: Final = "127.0.0.1"
SERVICE_PORT: Final = 8080
CLIENT_ID: Final = "dingclawdev"
STORE: Final = "sqlite:///data/dev.db"

BANNER: Final = """
  claw dev {version}: a local DingTalk with a real claw behind it

    chat page   {page}
    operator    {service}/   (its token: {token})
    claw        {service}/ready
    model       {model}

  Write to the robot on the page; press Ctrl-C to stop.
"""


def free_port(wanted: int) -> int:
    """Return `wanted` if nobody listens there, else some port that is free."""
    with socket.socket() as probe:
        # As a server sets it: a port whose last connection has just ended is free all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except (OSError, OverflowError):
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def environment(given: dict[str, str], page: str, secret: str) -> dict[str, str]:
    """Return the environment of `claw dev`: what is `given`, except that DingTalk is the emulator."""
    # None of them: a real secret has no business at an emulator.
    environ = {name: value for name, value in given.items() if not name.startswith("DINGTALK_")}
    environ |= {
        "DINGTALK_CLIENT_ID": CLIENT_ID,
        "DINGTALK_CLIENT_SECRET": secret,
        "DINGTALK_OPENAPI_ENDPOINT": page,
        "DINGTALK_OAPI_ENDPOINT": page,
    }
    if not any(given.get(name, "").strip() for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL")):
        environ |= {
            "OPENAI_API_KEY": "dev",
            "OPENAI_BASE_URL": f"{page}/v1",
            "OPENAI_MODEL": "claw-dev",
            "CLAW_MODEL_API": "chat",
        }
    defaults = {
        "HOST": HOST,
        "PORT": str(free_port(SERVICE_PORT)),
        "CLAW_STORE_URL": STORE,
        # Printed below, so that the operator's page can be tried; a new one each time.
        "CLAW_ADMIN_TOKEN": secrets.token_urlsafe(12),
    }
    for name, value in defaults.items():
        if not environ.get(name, "").strip() and not environ.get(f"{name}_FILE", "").strip():
            environ[name] = value
    return environ


def main(page_port: int) -> int:
    """Serve until Ctrl-C; returns the exit code of `claw run`."""
    port = free_port(page_port)
    page = f"http://{HOST}:{port}"
    # Of this run only: the emulator refuses others, as DingTalk would.
    secret = secrets.token_urlsafe(24)
    try:
        given = files.environment()
        loaded = reader.load(environment(given, page, secret))
    except SettingsError as error:
        reader.print_problems(error, reader.read_language(os.environ))
        return int(Exit.SETTINGS)
    generated = not any(given.get(name, "").strip() for name in ("CLAW_ADMIN_TOKEN", "CLAW_ADMIN_TOKEN_FILE"))
    service = f"http://{HOST}:{loaded.http.port}"

    async def run() -> Exit:
        emulator = Emulator(host=HOST, port=port, client_id=CLIENT_ID, client_secret=secret, service_url=service)
        await emulator.start()
        try:
            return await App(loaded, on_serving=announce).run()
        finally:
            # Last: claw drains against it, and would else report a lost connection.
            await emulator.stop()

    def announce() -> None:
        if port != page_port:
            print(f"\n  Port {page_port} is taken: the page is at another one.", flush=True)  # noqa: T201 - as below
        built_in = loaded.model.base_url.startswith(page)
        model = "built in (set OPENAI_API_KEY for a real one)" if built_in else loaded.model.name
        token = loaded.http.admin_token.reveal() if generated else "your CLAW_ADMIN_TOKEN"
        print(  # noqa: T201 - what a person at a terminal needs
            BANNER.format(version=__version__, page=page, service=service, model=model, token=token), flush=True
        )

    return serve(loaded, run)
