# claw's image: `docker build -t claw .`, and `docker build --target sbom --output . .` for its bill of materials.
#
# No part of it needs BuildKit. Where a network opens TLS, mount the host's certificates and pip configuration
# (buildah, podman: -v /etc/ssl/certs:/etc/ssl/certs:ro -v /etc/pip.conf:/etc/pip.conf:ro), or name a BASE_IMAGE that
# has them: nothing here overrides pip's configuration or copies certificates into the image.
#
# Any Debian with Python 3.11 or later will do as the base; both stages must have the same.
ARG BASE_IMAGE=python:3.12-slim

# --- build: what runs is put together in /opt/claw -------------------------------------------------------------------
FROM ${BASE_IMAGE} AS build
WORKDIR /build

# Debian keeps ensurepip in a package of its own; python:*-slim has it.
RUN python3 -c 'import ensurepip' 2>/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*; }

# Two environments: /build/pip has pip and installs, /opt/claw is installed to and never has it. Only wheels, each of
# a known hash: no compiler is needed, and no code of a package runs here.
# PIP_INDEX_URL: a mirror of packages, where the usual index is far or closed; the hashes hold whoever serves the files.
ARG PIP_INDEX_URL
COPY requirements.lock ./
RUN python3 -m venv /build/pip \
 && python3 -m venv --without-pip /opt/claw \
 && /build/pip/bin/python -m pip --python /opt/claw/bin/python install \
      --disable-pip-version-check --no-cache-dir --no-compile --only-binary :all: --require-hashes -r requirements.lock

# Many wheels bring their debugging symbols along, an eighth of the image. Where binutils cannot be had, they stay.
RUN { command -v strip >/dev/null \
      || { apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*; }; } \
 && find /opt/claw/lib -name '*.so*' -type f -exec strip --strip-unneeded {} + \
 || echo 'not stripped'

# The commit that is built: `claw --version`, /status and the log tell it. Unknown where none is given.
ARG COMMIT=

# claw itself, without its emulator: `claw dev` belongs to the repository. Sources of C extensions and type stubs are of
# no use at run time, nor are packages' own tests.
COPY LICENSE ./
COPY claw ./claw
COPY deploy/image ./image
RUN site="$(/opt/claw/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && cp -r claw "$site/claw" \
 && cp LICENSE /opt/claw/LICENSE \
 && printf '%s' "$COMMIT" > "$site/claw/COMMIT" \
 && rm -rf "$site/claw/emulator" "$site/claw/cli/dev.py" \
 && find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete \
 && find "$site" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} + \
 && printf '#!/opt/claw/bin/python\nimport sys\n\nfrom claw.__main__ import main\n\nsys.exit(main())\n' > /opt/claw/bin/claw \
 && chmod 0755 /opt/claw/bin/claw

# The root is read-only at run time, so that bytecode must be there before: of all that claw imports, the standard
# library too (python:*-slim has none of it, and a start or a HEALTHCHECK would compile it each time).
RUN PYTHONPYCACHEPREFIX=/opt/claw/bytecode /opt/claw/bin/python -B image/bytecode.py \
 && /opt/claw/bin/python -B image/sbom.py > /build/sbom.cdx.json

# --- sbom: CycloneDX JSON of the packages of Python and of Debian ----------------------------------------------------
FROM scratch AS sbom
COPY --from=build /build/sbom.cdx.json /sbom.cdx.json

# --- the image -------------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE}

# Certificates, where the base has none; dpkg is asked, for the file may be the host's, mounted for the build only. The
# base's pip goes: nothing is installed at run time. The user is a number, because Kubernetes cannot tell of a name that
# it is not root.
RUN { dpkg-query -W ca-certificates >/dev/null 2>&1 \
      || { apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*; }; } \
 && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
      /usr/bin/pip* /usr/lib/python3/dist-packages/pip* /usr/lib/python3*/ensurepip \
 && mkdir -m 0750 /data \
 && chown 10001:10001 /data

COPY --from=build /opt/claw /opt/claw

# PYTHONPYCACHEPREFIX: where the bytecode is; nothing is ever written there. HOME and TMPDIR: the only place that can be
# written to, should a library or SQLite ask.
ENV PATH=/opt/claw/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPYCACHEPREFIX=/opt/claw/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    TMPDIR=/data \
    container=oci

ARG VERSION=0.2.0
ARG COMMIT=
ARG CREATED=unknown
LABEL org.opencontainers.image.title="claw" \
      org.opencontainers.image.description="A DingTalk robot in Stream mode, answered by any OpenAI-compatible model" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}"

# The store's default, sqlite:///data/claw.db, is relative to here: /data/claw.db.
WORKDIR /
VOLUME /data
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks /ready: an unhealthy claw waits for DingTalk or a secret, which no restart cures. Plain Docker only shows it;
# where unhealthy means killed (Swarm), see docs/docker.md. The answer comes within 3 s.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["claw", "health"]
CMD ["claw", "run"]
