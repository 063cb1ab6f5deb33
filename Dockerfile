# fbnetv5 with TensorRT, for machines with an NVIDIA GPU and the NVIDIA Container Toolkit:
#
#     docker build --tag fbnetv5 .
#     docker run --rm --gpus all --ipc host --volume "$PWD:/work" --user "$(id -u):$(id -g)" fbnetv5 doctor
#
# Processes that load images need more shared memory than a container has by default, hence --ipc host.
# The first stage has the CUDA toolkit, which compiles pycuda; the second has the CUDA libraries only. The driver comes
# from the host. torch and TensorRT bring their own CUDA libraries as Python packages.
ARG CUDA=12.9.1
ARG UBUNTU=24.04

FROM nvidia/cuda:${CUDA}-devel-ubuntu${UBUNTU} AS build
# The distribution keeps one version of a package; a pinned version would vanish with its next security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/fbnetv5
ENV PATH=/opt/fbnetv5/bin:$PATH
WORKDIR /src
COPY . .
# pyproject.toml has the versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[tensorrt]"

FROM nvidia/cuda:${CUDA}-runtime-ubuntu${UBUNTU}
LABEL org.opencontainers.image.title="fbnetv5" \
      org.opencontainers.image.description="Multi-task neural architecture search within a budget measured on your device" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 fbnetv5 \
    && mkdir /work \
    && chown fbnetv5:fbnetv5 /work
COPY --from=build /opt/fbnetv5 /opt/fbnetv5
# The cache of data set headers and of published weights; with --user another user than fbnetv5 writes it.
ENV PATH=/opt/fbnetv5/bin:$PATH \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["fbnetv5"]
CMD ["--help"]
