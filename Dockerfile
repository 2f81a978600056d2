# Two images from one file: `--target api` (API, migrations, dispatcher; without torch) and `--target worker` (with torch
# and its CUDA libraries; the driver comes from the host through the NVIDIA container toolkit).
# All they install is in deploy/locks, with hashes (`make lock`). What builds stays behind: the final images have a virtual
# environment and no pip.
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY deploy/locks deploy/locks
RUN python -m venv --without-pip /venv \
    && python -m pip install --require-hashes --requirement deploy/locks/build.txt \
    && python -c "import os; from pip._internal.models.index import PyPI; \
        print('[global]\nindex-url =', os.environ.get('PIP_INDEX_URL', PyPI.simple_url))" >/pip.conf

FROM build AS wheels
COPY pyproject.toml README.md LICENSE SAMPLE-LICENCES.md ./
COPY client client
COPY core core
COPY api api
COPY worker worker
COPY migrations migrations
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./client .

FROM build AS build-api
RUN python -m pip --python /venv/bin/python install --require-hashes --requirement deploy/locks/api.txt
COPY --from=wheels /wheels /wheels
RUN python -m pip --python /venv/bin/python install --no-deps --no-index /wheels/*.whl

FROM build AS build-worker
RUN python -m pip --python /venv/bin/python install --require-hashes --requirement deploy/locks/worker.txt
COPY --from=wheels /wheels /wheels
RUN python -m pip --python /venv/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim AS runtime
RUN python -m pip uninstall --yes pip \
    && useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin secateur \
    && mkdir /data && chown 10001:10001 /data
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SECATEUR_HOME=/data SECATEUR_LOG_FORMAT=json HF_HOME=/data/cache/huggingface
WORKDIR /data
USER 10001:10001

FROM runtime AS api
COPY --from=build-api /venv /venv
ENV UVICORN_HOST=0.0.0.0 UVICORN_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"UVICORN_PORT\"]}/healthz')"]
CMD ["uvicorn", "--factory", "api.start:create_app", "--http", "api.slow_clients:BoundedConnection", "--no-access-log", \
     "--no-proxy-headers", "--timeout-graceful-shutdown", "10"]

FROM runtime AS worker
USER 0:0
# llama.cpp, which GGUF files are checked by, wants the system's OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build-worker /venv /venv
# Samples are fetched from the index that the image was built from, unless a setting names another.
COPY --from=build /pip.conf /etc/pip.conf
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-m", "worker.alive", "worker"]
CMD ["python", "-m", "worker"]
