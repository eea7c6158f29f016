#!/usr/bin/env bash
# As dist_one_machine.sh, over several machines. Run the same line on each; HEAD is one of them that all can reach.
#   NODES=4 GPUS=8 HEAD=node0:29500 bash scripts/dist_multi_machine.sh
# The recipe is that of arXiv:1910.00932, which trained Kinetics on 1,536 GPUs with it: the learning rate follows the
# batch. The data, --root_model and --root_log must be the same folders on all machines (a shared file system): when a
# process dies, the machines start again together and continue from the last checkpoint, and another one may be the first,
# which writes. `python -m tests.two_hosts --kill` shows it on one machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus="${GPUS:-8}"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || { echo "GPUS is the number of GPUs of a machine, 1 or more, got '$gpus'" >&2; exit 2; }
nodes="${NODES:?set NODES to the number of machines}"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || { echo "NODES is the number of machines, 1 or more, got '$nodes'" >&2; exit 2; }
head="${HEAD:?set HEAD to host:port of one machine}"
# So that the processes of a restart meet in a new place, and not where the dead ones have left their addresses.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="$nodes" --nproc_per_node="$gpus" --max_restarts=3 \
    --rdzv_backend=c10d --rdzv_endpoint="$head" --rdzv_id="${JOB:-tsm}" \
    main.py kinetics RGB \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres --dense_sample \
    --lr 0.02 --auto_lr 128 --warmup_epochs 5 --lr_type cos --epochs 100 --batch-size $((8 * nodes * gpus)) \
    --wd 1e-4 --gd 20 --dropout 0.5 --eval-freq=1 --npb -j $((4 * gpus)) --resume auto \
    "$@"
