#!/usr/bin/env bash
# A sweep on SLURM: every worker is a job of its own, with one GPU, that may start late, end early or be killed.
#
#   pip install dask-jobqueue        # into the environment nfd_jax is installed in, which the jobs must see too
#   JOBS=8 PARTITION=gpu scripts/slurm_sweep.sh configs/quickstart.yaml --out /shared/results/quickstart
#
# Arguments are those of `nfd run`, and so is the exit status. This process starts a Dask scheduler, submits the jobs and runs
# `nfd run --scheduler`, the only one that writes results; keep it alive (tmux, or a small job of its own). Stopped in whatever
# way, it resumes with the same command. Workers get configs, not arrays: data files must lie under the same path everywhere.
#
#   JOBS       workers (4)            WALLTIME   of a job (04:00:00), at least as long as the longest batch: see nfd plan
#   PARTITION  queue (the default)    ACCOUNT    to be charged (the default)
#   CORES      of a worker (4)        MEMORY     of a worker (16GB)
#   GRES       of a worker (gpu:1); empty for workers without a GPU
#   INTERFACE  network interface the jobs reach this machine by (found by itself), such as ib0
#
# For PBS, take PBSCluster with resource_spec="select=1:ncpus=4:ngpus=1:mem=16gb" in place of SLURMCluster; dask-jobqueue has
# more. A cluster started in any other way will do, with one thread a worker and no memory limit (Dask would pause a worker near it
# for good): nfd run CONFIG --scheduler tcp://HOST:8786.
set -euo pipefail

exec "${PYTHON:-python3}" - "$@" <<'PYTHON'
import os
import subprocess
import sys

from dask_jobqueue import SLURMCluster

get = os.environ.get
cluster = SLURMCluster(
    cores=int(get("CORES", "4")),
    processes=1,
    memory=get("MEMORY", "16GB"),
    walltime=get("WALLTIME", "04:00:00"),
    queue=get("PARTITION"),
    account=get("ACCOUNT"),
    interface=get("INTERFACE"),
    job_extra_directives=[f"--gres={get('GRES', 'gpu:1')}"] if get("GRES", "gpu:1") else [],
    job_script_prologue=[f"export NPROC={get('CORES', '4')}"],  # threads of XLA on a CPU
    worker_extra_args=["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"],  # the last of each counts
    log_directory="slurm-logs",
    scheduler_options={"dashboard": False, "dashboard_address": ":0"},
)
with cluster:
    cluster.scale(jobs=int(get("JOBS", "4")))
    sweep = subprocess.Popen(["nfd", "run", *sys.argv[1:], "--scheduler", cluster.scheduler_address], stdin=subprocess.DEVNULL)
    while sweep.poll() is None:
        try:
            sweep.wait()
        except KeyboardInterrupt:  # which reached the sweep as well
            pass
sys.exit(sweep.returncode)
PYTHON
