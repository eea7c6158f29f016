#!/usr/bin/env bash
#SBATCH --job-name=tsm
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
# dist_multi_machine.sh as a Slurm job; run from the repository:
#   sbatch [--nodes=16 --time=...] scripts/dist_slurm.sh [options of main.py]
# A job that is requeued continues from its last checkpoint.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch, from the repository}"
# Slurm runs a copy of this file, so that paths start from where it was submitted.
export NODES="$SLURM_JOB_NUM_NODES" GPUS="${SLURM_GPUS_ON_NODE:-8}" JOB="tsm-$SLURM_JOB_ID"
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500"
export HEAD
exec srun --kill-on-bad-exit=1 bash scripts/dist_multi_machine.sh "$@"
