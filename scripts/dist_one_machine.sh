#!/usr/bin/env bash
# TSM ResNet-50 on Kinetics-400 on all GPUs of one machine, with the large-batch recipe of arXiv:1910.00932: 8 clips a
# GPU, learning rate proportional to the batch (0.00125 for each 8 clips), 5 epochs of linear warm-up, cosine decay, no
# weight decay on BN (main.py never has any). Published for the model: 74.1 % top-1 (10 dense clips, 3 crops, full
# resolution).
#   GPUS=4 bash scripts/dist_one_machine.sh
# A process that dies is started again, and the job continues from its last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus="${GPUS:-8}"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || { echo "GPUS is the number of GPUs of a machine, 1 or more, got '$gpus'" >&2; exit 2; }
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc_per_node="$gpus" --max_restarts=3 \
    main.py kinetics RGB \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres --dense_sample \
    --lr 0.02 --auto_lr 128 --warmup_epochs 5 --lr_type cos --epochs 100 --batch-size $((8 * gpus)) \
    --wd 1e-4 --gd 20 --dropout 0.5 --eval-freq=1 --npb -j $((4 * gpus)) --resume auto \
    "$@"
