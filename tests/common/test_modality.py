"""Stack lengths and channels of the modalities, as TSN publishes them."""

from __future__ import annotations

import pytest

from ops.common.errors import InputError
from ops.common.modality import (
    check_modality,
    clip_channels,
    default_new_length,
    frames_per_segment,
    input_channels,
)


@pytest.mark.parametrize(
    ("modality", "new_length", "frames", "in_clip", "in_network"),
    [("RGB", 1, 1, 3, 3), ("Flow", 5, 5, 10, 10), ("RGBDiff", 5, 6, 18, 15)],
)
def test_a_segment_of_each_modality(modality, new_length, frames, in_clip, in_network):
    assert check_modality(modality) == modality
    assert default_new_length(modality) == new_length
    assert frames_per_segment(modality, new_length) == frames
    assert clip_channels(modality, new_length) == in_clip
    assert input_channels(modality, new_length) == in_network


def test_unknown_modality_names_the_choices():
    with pytest.raises(InputError, match="unknown modality 'rgb': choose one of RGB, Flow, RGBDiff"):
        check_modality("rgb")
