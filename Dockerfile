# Two stages, so that what builds does not stay. Singularity.def installs the same; a test compares the two.
FROM debian:bookworm-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# versions of Debian's packages are those of the stable release; all that computes is pinned in requirements.lock
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
# the lock first: a change of the app alone then leaves this layer as it is
COPY requirements.lock /src/
RUN python3 -m venv /opt/app \
 && /opt/app/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE /src/
COPY bids_app /src/bids_app
COPY boilerplate /src/boilerplate
COPY .ci/containers/slim.sh /src/slim.sh
RUN /opt/app/bin/pip install --no-cache-dir --no-compile --no-deps /src \
 && bash /src/slim.sh /opt/app

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="bids_app" \
      org.opencontainers.image.description="BIDS App that tells RRMS from NMOSD by brain FLAIR scans; research software" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.authors="The bids_app developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/app /opt/app
# caches and temporary files need no settings: the app sends them to its work directory
ENV PATH=/opt/app/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DENO_NO_UPDATE_CHECK=1
USER 65534:65534
WORKDIR /
ENTRYPOINT ["bids_app"]
