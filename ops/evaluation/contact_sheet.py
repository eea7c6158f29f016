"""A picture of the clips that a network finds hardest: their frames, the truth, the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ops.common.errors import escaped
from ops.data.sampling import seeded_rng
from ops.dataset import TSNDataSet, load_clip
from ops.evaluation.plots import new_figure, save_png
from ops.evaluation.scores import Scores
from ops.evaluation.tables import class_names_or_numbers

_MAX_CLIPS, _MAX_FRAMES = 12, 8
_FRAME_INCHES = 1.4


def worst_clips_png(
    dataset: TSNDataSet,
    indices: Sequence[int],
    result: Scores,
    class_names: Sequence[str] | None,
    path: str | Path,
) -> None:
    """Draw the up to 12 clips whose true class got the lowest probability, a row each, the worst first.

    Args:
        dataset: the test set; shown is what the network sees of a frame (of several crops, the first).
        indices: place in the data set of each of `result`'s M videos.

    Raises:
        InputError: a video cannot be read any more, or the file cannot be written.
    """
    names = class_names_or_numbers(class_names, result.num_classes)
    probabilities, ranks = result.probabilities(), result.ranks()
    of_truth = probabilities[np.arange(len(ranks)), result.labels]
    worst = np.argsort(of_truth, kind="stable")[:_MAX_CLIPS]
    rows = [_row(_frames(dataset, int(indices[video]))) for video in worst]
    figure = new_figure(_MAX_FRAMES * _FRAME_INCHES, len(rows) * (_FRAME_INCHES + 0.45))
    for axes, picture, video in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, worst, strict=True):
        answer = int(result.scores[video].argmax())
        truth = f"{names[result.labels[video]]} {100 * of_truth[video]:.1f} %, rank {ranks[video]}"
        said = f"answer: {names[answer]} {100 * probabilities[video, answer]:.1f} %"
        axes.set_title(
            f"truth: {truth}    {said if ranks[video] > 1 else 'right'}    {escaped(result.names[video])}",
            loc="left",
            fontsize=9,
            color="darkred" if ranks[video] > 1 else "darkgreen",
            parse_math=False,
        )
        axes.imshow(picture)
        axes.set_anchor("W")
        axes.set_axis_off()
    save_png(figure, path)


def _row(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames side by side, with a little white between them."""
    gap = max(1, frames[0].shape[1] // 50)
    return np.hstack([np.pad(frame, ((0, 0), (0, gap), (0, 0)), constant_values=255) for frame in frames])


def _frames(dataset: TSNDataSet, index: int) -> list[np.ndarray]:
    """Up to 8 of a video's sampled frames in playing order, uint8 (H, W, 3) each; flow as red (x) and green (y)."""
    record, rng = dataset.video_list[index], seeded_rng(dataset.seed, 0, index)
    sampled = np.unique(dataset.sample_frames(record.num_frames, rng)[:: dataset.new_length])
    if dataset.reverse:
        sampled = sampled[::-1]
    chosen = sampled[np.unique(np.linspace(0, len(sampled) - 1, _MAX_FRAMES).round().astype(int))]
    clip = load_clip(dataset.open(record), chosen, dataset.transform, rng)[: len(chosen)]  # the first crop
    frames = clip.permute(0, 2, 3, 1).numpy()
    if frames.shape[3] == 2:
        frames = np.concatenate([frames, np.full_like(frames[..., :1], 128)], axis=3)
    return list(frames)
