"""Warnings about training options that run, but hardly do what was wanted."""

from __future__ import annotations

from collections.abc import Sequence

from ops.common.errors import counted

_MIN_BN_CLIPS = 8
_ORDER_MATTERS = ("something", "somethingv2", "jester")
# Published: lr 0.02 for batches of 128 (8 GPUs x 16 clips), scaled linearly with the batch.
_USUAL_LR, _USUAL_BATCH, _MUCH = 0.02, 128, 10


def training_advice(
    *,
    dataset: str,
    is_shift: bool,
    from_scratch: bool,
    partial_bn: bool,
    sync_bn: bool,
    batch_size: int,
    num_devices: int,
    accum_steps: int,
    can_sync: bool,
    num_train: int,
    lr: float,
    lr_type: str,
    lr_steps: Sequence[float],
    epochs: int,
    warmup_epochs: int,
) -> list[str]:
    """A line for each combination that is probably a mistake.

    Args:
        from_scratch: random weights.
        batch_size: of the whole job.
        can_sync: --sync_bn would have an effect, as there are several processes.
        lr: after --auto_lr.
    """
    advice = []
    bn_clips = max(1, batch_size // accum_steps // (1 if sync_bn and can_sync else num_devices))
    if not partial_bn and bn_clips < _MIN_BN_CLIPS:
        remedies = ["a larger --batch-size"]
        remedies += ["--sync_bn"] if can_sync and not sync_bn else []
        remedies += [] if from_scratch else ["no --npb, to keep the pretrained network's"]
        advice.append(
            f"each batch norm sees {counted(bn_clips, 'clip')} at a time, too few for good statistics: "
            f"try {' or '.join(remedies)}"
        )
    if partial_bn and from_scratch:
        advice.append("partial BN keeps the statistics of a network that has none yet: use --npb to train from scratch")
    if dataset in _ORDER_MATTERS and not is_shift:
        advice.append(f"without --shift this is TSN, which cannot see the order of frames that {dataset} is about")
    usual = _USUAL_LR * batch_size / _USUAL_BATCH
    if lr > _MUCH * usual:
        advice.append(
            f"--lr {lr:g} is {lr / usual:.0f} times the published rate for batches of {batch_size}, {usual:g}; "
            f"--auto_lr {_USUAL_BATCH} scales a rate for {_USUAL_BATCH} to yours"
        )
    if lr_type == "step" and min(lr_steps) >= epochs:
        advice.append(f"the learning rate never drops: --lr_steps begin at {min(lr_steps):g}, --epochs is {epochs}")
    if warmup_epochs >= epochs:
        advice.append(f"the learning rate only rises: --warmup_epochs is {warmup_epochs}, --epochs is {epochs}")
    if num_train < batch_size:
        advice.append(
            f"--batch-size {batch_size} is more than the {counted(num_train, 'training video')}: an epoch is one step"
        )
    return advice
