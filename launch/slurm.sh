#!/bin/bash
# Several GPU nodes of a Slurm cluster, one process for each GPU. From the clone:
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/siglip_b16.py --workdir=/shared/b16
#
# The workdir is a folder that all nodes see. What follows `train` in run.py follows the
# script's name here; PYTHON names another interpreter than .venv/bin/python. JAX reads
# from Slurm who is who. --gpus-per-node rather than --gpus-per-task: each process sees
# all GPUs of its node and takes the one with its number. Before the time is up, or when
# the job is moved, all processes save after the same step, and the job queues again.
#SBATCH --job-name=big_mm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=big_mm_%j.txt
set -euo pipefail

code=0
# --wait: when one process has ended, the others get three minutes to end too.
srun --wait=180 "${PYTHON:-.venv/bin/python}" run.py train "$@" || code=$?
if [ "$code" = 75 ]; then # saved on request; the same command goes on
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
