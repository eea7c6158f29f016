"""A network that knows still pictures, and a video of two of them."""

import numpy as np
import pytest

from online_demo.model import load_model
from tests.helpers import make_video
from tests.online_demo.helpers import picture, save_knowing_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A checkpoint that knows still pictures."""
    return save_knowing_pictures(tmp_path_factory.mktemp("weights") / "pictures.pth.tar")


@pytest.fixture(scope="session")
def model(pictures):
    return load_model(pictures)


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Picture 2 for 30 frames, then picture 4 for 30."""
    frames = np.stack([picture(2)] * 30 + [picture(4)] * 30)
    return make_video(tmp_path_factory.mktemp("video") / "video.mp4", frames)
