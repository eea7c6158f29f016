# The quick start in a container.
#   docker build -t tsm . && docker run tsm                                          CPU
#   docker build -t tsm --build-arg TORCH=cu126 . && docker run --gpus all tsm       CUDA (NVIDIA's container toolkit)
# TORCH is the build of PyTorch: cpu, or a version of CUDA as PyTorch's wheels are called. Results are in /tsm/quickstart:
#   docker run -v "$PWD/quickstart:/tsm/quickstart" tsm
FROM python:3.12-slim
ARG TORCH=cpu
WORKDIR /tsm
COPY requirements.txt ./
COPY scripts/setup.sh scripts/
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/$TORCH" torch torchvision \
    && PIP_NO_CACHE_DIR=1 bash -c 'source scripts/setup.sh && setup_venv requirements.txt'
COPY . .
CMD ["bash", "scripts/quickstart.sh"]
