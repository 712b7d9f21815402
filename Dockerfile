# An image with the environment of requirements.lock, for clusters that run containers. Not built by the tests.
#   docker build --tag malmen .                  pip's torch brings CUDA's libraries; for another build of it, give pip's
#                                                options for its index: --build-arg TORCH="--index-url URL torch==2.13.0"
#   docker run --rm --gpus all --volume "$PWD:/project" malmen snakemake --configfile config/small.yaml
FROM python:3.11-slim

ARG TORCH="torch"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    # The checkout belongs to another user there, and jobs record its commit.
    && git config --system --add safe.directory /project

WORKDIR /opt/malmen
COPY . .
RUN pip install --no-cache-dir --constraint requirements.lock $TORCH \
    && pip install --no-cache-dir --constraint requirements.lock --editable '.[dev,large,slurm]'

# The project is mounted at /project: what runs is what lies beside the data.
ENV PYTHONPATH=/project/src
WORKDIR /project
CMD ["snakemake", "--help"]
