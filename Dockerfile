# One image for every service of docker-compose.yaml but the databases: Airflow, mlengine, the emulator, the
# Cloud Storage server and TensorBoard's starter. What is installed is what the lock files say, with their hashes.
#
# Nothing here knows a registry. A package index of one's own: --build-arg UV_DEFAULT_INDEX=… and PIP_INDEX_URL=…; they
# reach the first stage only, which is not shipped. A company's certificates: a PYTHON_IMAGE that trusts them.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_DEFAULT_INDEX
ARG PIP_INDEX_URL
ENV UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
COPY scripts/bootstrap.py scripts/
COPY plugins/mlengine/__init__.py plugins/mlengine/
COPY plugins/mlengine/runtime/__init__.py plugins/mlengine/runtime/uv_env.py plugins/mlengine/runtime/
COPY requirements.lock requirements-image.lock ./
# uv is the one that the lock names, as in every other environment of this project.
# (An argument that compose was not given is empty here, and no index.)
RUN if [ -z "$UV_DEFAULT_INDEX" ]; then unset UV_DEFAULT_INDEX; fi; if [ -z "$PIP_INDEX_URL" ]; then unset PIP_INDEX_URL; fi \
 && uv=$(python3 -c 'import sys; sys.path.insert(0, "scripts"); import bootstrap; print(bootstrap.ensure_uv(sys.executable))' | tail -n 1) \
 && "$uv" venv --quiet --python "$(command -v python3)" /opt/mlengine/venv \
 && "$uv" pip sync --quiet --python /opt/mlengine/venv/bin/python --require-hashes --compile-bytecode \
      requirements.lock requirements-image.lock \
 && rm -rf .mlengine

# The package itself, built offline with the backend of the lock.
FROM build AS package
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY plugins/mlengine plugins/mlengine
RUN VIRTUAL_ENV=/opt/mlengine/venv /opt/mlengine/venv/bin/uv build --quiet --wheel --offline --no-build-isolation \
      --python /opt/mlengine/venv/bin/python --out-dir /dist .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title=mlengine org.opencontainers.image.licenses=Apache-2.0
# Volumes take the owner of the folder they are first mounted on.
RUN useradd --uid 10001 --create-home --home-dir /home/mlengine --shell /usr/sbin/nologin mlengine \
 && mkdir -p /opt/mlengine /var/lib/airflow /var/lib/mlengine /var/lib/gcs /var/log/airflow \
 && chown mlengine:mlengine /var/lib/airflow /var/lib/mlengine /var/lib/gcs /var/log/airflow
COPY --from=build /opt/mlengine/venv /opt/mlengine/venv
COPY --from=package /dist /tmp/dist
RUN /opt/mlengine/venv/bin/uv pip install --quiet --no-cache --offline --no-deps --compile-bytecode \
      --python /opt/mlengine/venv/bin/python /tmp/dist/*.whl \
 && rm -rf /tmp/dist
COPY scripts/mnist.py /opt/mlengine/scripts/
COPY dags /opt/mlengine/dags
COPY examples /opt/mlengine/examples
COPY trainer /opt/mlengine/trainer
COPY deploy /opt/mlengine/deploy
ENV PATH=/opt/mlengine/venv/bin:/usr/local/bin:/usr/bin:/bin \
    AIRFLOW_HOME=/var/lib/airflow \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    UV_SYSTEM_CERTS=true NODE_USE_SYSTEM_CA=1 UV_PYTHON_DOWNLOADS=never
USER mlengine
WORKDIR /var/lib/airflow
CMD ["airflow", "version"]
