# An image with the environment of requirements.lock, for clusters that run containers. How far it has been tried:
# docs/scaling.md, "Kubernetes".
#   docker build --tag malmen .                  pip's torch brings CUDA's libraries; for another build of it, give pip's
#                                                options for its index: --build-arg TORCH="--index-url URL torch==2.13.0"
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/project" malmen \
#       snakemake --configfile config/small.yaml
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    # The checkout belongs to another user there, and jobs record its commit.
    && git config --system --add safe.directory /project

WORKDIR /opt/malmen
# torch, some GB, is installed again only if the versions change.
ARG TORCH="torch"
COPY requirements.lock .
RUN pip install --no-cache-dir --constraint requirements.lock $TORCH
COPY . .
RUN pip install --no-cache-dir --constraint requirements.lock --editable '.[dev,large,slurm]'

# The project is mounted at /project: what runs is what lies beside the data.
ENV PYTHONPATH=/project/src
# The user of the checkout has no account there, but Snakemake and torch ask for a name and a home.
ENV USER=malmen HOME=/tmp
WORKDIR /project
CMD ["snakemake", "--help"]
