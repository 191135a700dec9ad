# docker build -t higherhrnet .
# docker run --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" -w /data higherhrnet predict photo.jpg
FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev libglib2.0-0t64 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home pose
ENV PATH=/opt/higherhrnet/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY higherhrnet higherhrnet
COPY configs configs
RUN python3 -m venv /opt/higherhrnet && pip install --no-cache-dir ".[video]"

USER pose
WORKDIR /home/pose
ENTRYPOINT ["higherhrnet"]
CMD ["--help"]
