# Sourced by the scripts on the moving digits: sets `out` (first argument, default quickstart/ in the repository), goes to
# the repository's root, and defines the steps that they share. Call setup_venv before the steps.

out="${1:-}"
if [ -n "$out" ]; then
    mkdir -p -- "$out"
    out="$(cd -- "$out" && pwd)"
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="${out:-$PWD/quickstart}"
mkdir -p "$out"
data="$out/moving_digits"

make_videos() { "$PYTHON" tools/make_moving_digits.py --out "$data/videos"; }
extract_frames() { "$PYTHON" tools/vid2img_kinetics.py "$data/videos" "$data/images" --height 80; }
write_lists() { "$PYTHON" tools/gen_label_kinetics.py "$data/images" --out "$data/labels" --from_folders; }

# The recipe of the quick start. usage: train NAME MODALITY [options]
train() {
    local name="$1" modality="$2"
    shift 2
    "$PYTHON" main.py moving_digits "$modality" --root_dataset "$out" --store_name "$name" \
        --root_log "$out/log" --root_model "$out/checkpoint" \
        --arch resnet18 --pretrain none --num_segments 8 --input_size 40 --npb --dropout 0.2 \
        --epochs 5 --batch-size 16 --lr 0.005 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 \
        --eval-freq 1 -j 2 --resume auto "$@"
}
weights() { echo "$out/checkpoint/$1/ckpt.best.pth.tar"; }
# usage: evaluate NAME RESULTS [options]: writes RESULTS.npz and the folder RESULTS
evaluate() {
    local name="$1" results="$2"
    shift 2
    "$PYTHON" test_models.py moving_digits --root_dataset "$out" --weights "$(weights "$name")" --test_segments 8 \
        --batch_size 16 -j 2 --scores "$out/$results.npz" --plots "$out/$results" "$@"
}
shift_options=(--shift --shift_div 8 --shift_place blockres)
