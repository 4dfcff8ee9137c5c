"""Writes the bytecode of all that claw imports, the standard library's too, where PYTHONPYCACHEPREFIX points.

Order of events: all of claw that is in the image, and what it loads later, is imported; each module that came from a
source is compiled. What is never imported (much of openai) stays source: it would add a third to the image. The
bytecode is never checked against its source again, for an image does not change, and a copied file may have another
time.
"""

import importlib
import pkgutil
import py_compile
import sys
from importlib.util import cache_from_source

import claw

ABSENT = ("claw.cli.dev", "claw.emulator")
LATER = (
    "openai",
    "openai.resources.chat",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.prometheus",
    "opentelemetry.sdk.metrics.export",
    "opentelemetry.sdk.trace.export",
    "charset_normalizer",
    "docx",
    "encodings.idna",
    "http.client",
    "lxml.html",
    "openpyxl",
    "PIL.ImageOps",
    "pi_heif",
    "pptx",
    "prometheus_client",
    "pypdfium2",
    "sqlite3",
)
"""What claw loads when it is needed."""


def main() -> None:
    if not sys.pycache_prefix:
        sys.exit("PYTHONPYCACHEPREFIX must say where the bytecode goes")
    own = [each.name for each in pkgutil.walk_packages(claw.__path__, "claw.") if not each.name.startswith(ABSENT)]
    for name in (*own, *LATER):
        importlib.import_module(name)
    importlib.import_module("openai").AsyncOpenAI(api_key="none").chat  # noqa: B018 - loads what a chat needs
    importlib.import_module("PIL.Image").init()  # Loads the formats.
    count = 0
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source and source.endswith(".py") and module.__name__ != "__main__":
            py_compile.compile(
                source,
                cache_from_source(source),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            count += 1
    sys.stderr.write(f"{count} modules compiled\n")


if __name__ == "__main__":
    main()
