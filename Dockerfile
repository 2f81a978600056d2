# Two images from one file: `--target api` (API, migrations, dispatcher; no torch) and `--target worker`.
FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --system --create-home --home-dir /home/secateur secateur \
    && mkdir -p /data && chown secateur:secateur /data
ENV SECATEUR_HOME=/data
COPY constraints.txt pyproject.toml README.md ./
COPY client client
COPY core core
COPY api api
COPY worker worker
COPY migrations migrations

FROM base AS api
RUN pip install --constraint constraints.txt ./client --editable .
USER secateur
EXPOSE 8000
CMD ["uvicorn", "--factory", "api.app:create_app", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS worker
RUN pip install --constraint constraints.txt ./client --editable '.[worker]'
USER secateur
CMD ["celery", "--app", "worker.app", "worker", "--concurrency", "1", "--queues", "default", \
     "--without-gossip", "--without-mingle"]
