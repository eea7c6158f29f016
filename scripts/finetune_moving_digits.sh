#!/usr/bin/env bash
# What --tune_from gains: TSM learns six classes of the moving digits, then the two others from few videos, once starting
# from those weights and once from random ones, with equal epochs. No GPU needed.
#   bash scripts/finetune_moving_digits.sh [FOLDER]        # default: quickstart/ in the repository
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
setup_venv requirements.txt

say "1/4 Video files, frames and lists: six classes, and 80 training videos of the two others"
make_videos
extract_frames
write_lists
for subset in train val; do
    lines="$data/labels/${subset}_videofolder.txt"
    grep -v "/turns_" "$lines" >"$data/labels/six_$subset.txt"
    # The labels of turns_clockwise and turns_counterclockwise are 6 and 7; here they are 0 and 1.
    sed -n '/\/turns_/{s/ 6$/ 0/;s/ 7$/ 1/;p}' "$lines" >"$data/labels/two_$subset.txt"
done
few="$data/labels/two_train_few.txt"
{ grep " 0$" "$data/labels/two_train.txt" | head -40; grep " 1$" "$data/labels/two_train.txt" | head -40; } >"$few"

train_turns() { # name, more options
    local name="$1"
    shift
    "$PYTHON" main.py turning_digits RGB --root_path "$data/images" --store_name "$name" --no_flip \
        --num_class 2 --train_list "$few" --val_list "$data/labels/two_val.txt" \
        --root_log "$out/log" --root_model "$out/checkpoint" \
        --arch resnet18 --pretrain none --num_segments 8 --input_size 40 --npb --dropout 0.2 "${shift_options[@]}" \
        --epochs 20 --batch-size 16 --lr 0.002 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 \
        --eval-freq 20 -j 2 --resume auto "$@"
}
say "2/4 Six classes"
train TSM_six RGB "${shift_options[@]}" --num_class 6 \
    --train_list "$data/labels/six_train.txt" --val_list "$data/labels/six_val.txt"
say "3/4 The two others, from those weights"
train_turns turns_tuned --tune_from "$(weights TSM_six)"
say "4/4 The two others, from random weights"
train_turns turns_scratch

say "Last epoch: accuracy on the 120 validation videos of the two classes"
for name in turns_tuned turns_scratch; do
    printf '%-14s %s\n' "$name" "$(grep "Testing Results" "$out/log/$name/log.csv" | tail -1)"
done
