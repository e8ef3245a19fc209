# A Docker Space or any GPU host: docker build -t orpo-studio . && docker run --gpus all -p 127.0.0.1:7860:7860 -v orpo-runs:/home/user/runs -e ORPO_STUDIO_PASSWORD orpo-studio
# The password is that of the user "owner"; without one nobody gets in, and the studio says so.
# The torch wheel brings its CUDA libraries; the host needs only NVIDIA's driver. No secret is needed to build.
FROM python:3.12-slim

# Triton compiles the launcher of each of its kernels with a C compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user && mkdir -p /home/user/runs && chown user:user /home/user/runs
USER user
ENV HOME=/home/user \
    PATH=/home/user/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    ORPO_STUDIO_RUNS=/home/user/runs
WORKDIR /home/user/app

COPY --chown=user requirements.txt .
RUN pip install --no-cache-dir --user -r requirements.txt
COPY --chown=user . .

EXPOSE 7860
VOLUME /home/user/runs
CMD ["python", "app.py"]
