"""A network that knows still pictures, what it is shown, and the web page."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from online_demo.backends.cache import CACHE_VARIABLE
from online_demo.backends.torch_backend import TorchBackend
from online_demo.camera.sources import FolderSource
from online_demo.loop import Playback, run_source
from online_demo.model import load_model
from online_demo.recognizer import Recognizer
from online_demo.smoothing import SmoothingOptions
from online_demo.web.messages import About
from tests.helpers import make_video
from tests.online_demo.helpers import picture, save_knowing_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A checkpoint that knows still pictures."""
    return save_knowing_pictures(tmp_path_factory.mktemp("weights") / "pictures.pth.tar")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "compiled"


@pytest.fixture(autouse=True)
def use_cache(cache_dir, monkeypatch):
    """One cache for all of these tests: exporting and compiling take seconds."""
    monkeypatch.setenv(CACHE_VARIABLE, str(cache_dir))


@pytest.fixture(scope="session")
def model(pictures):
    return load_model(pictures, with_torch=True)


@pytest.fixture
def make_recognizer(model):
    """Every frame goes to the network, however fast the frames come."""
    return lambda: Recognizer(model, TorchBackend(model), SmoothingOptions(), every=1)


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Picture 2 for 30 frames, then picture 4 for 30."""
    frames = np.stack([picture(2)] * 30 + [picture(4)] * 30)
    return make_video(tmp_path_factory.mktemp("video") / "video.mp4", frames)


@pytest.fixture(scope="session")
def still(tmp_path_factory):
    """A folder of frames that are all picture 3."""
    folder = tmp_path_factory.mktemp("still")
    for number in range(6):
        Image.fromarray(picture(3)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def about(model):
    return About("pictures.pth.tar, 5 classes", "still pictures", model.class_names, "Show one of the pictures.")


@pytest.fixture
def server(make_recognizer, about):
    pytest.importorskip("aiohttp")
    from online_demo.web.server import PageServer

    with PageServer(("127.0.0.1", 0), make_recognizer, about, allowed_hosts=["board.test"]) as server:
        yield server


@pytest.fixture
def playing(server, make_recognizer, still):
    """The demo's loop over picture 3, in a thread, shown on the page."""
    stop = threading.Event()
    playback = Playback(paced=True, repeat=True)
    arguments = (FolderSource(still), make_recognizer(), [server], playback, stop.is_set)
    thread = threading.Thread(target=run_source, args=arguments)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def screenshots(tmp_path):
    """Where screenshots are kept: set TSM_TEST_SCREENSHOTS to look at them."""
    return Path(os.environ.get("TSM_TEST_SCREENSHOTS") or tmp_path)
