"""Readers of pictures, videos, checkpoints and scores, for tests/fuzz_readers.py."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from online_demo.camera.sources import open_source
from online_demo.model import load_model
from ops.checkpoint.file import load_checkpoint
from ops.checkpoint.weights import load_into
from ops.common.errors import InputError
from ops.data.images import read_image, read_tensor
from ops.dataset import TSNDataSet
from ops.evaluation.scores import Scores
from ops.models import TSN
from ops.transforms import test_transform, train_transform
from tests.fuzz_base import Reader, Value, anything_goes, digest, nothing_may_differ
from tests.helpers import make_frame_folder, make_frames, make_list, make_video
from tests.online_demo.helpers import save_random
from tools.check_dataset import check_video
from tools.shared.extraction import Extraction, extract_video

NUM_FRAMES, NUM_CLASSES = 12, 5

# --- pictures ---------------------------------------------------------------------------------------------------------


def make_pictures(folder: Path) -> list[str]:
    frames = make_frames(6, (96, 64))
    settings = {
        "plain.jpg": {"quality": 95},
        "coarse.jpg": {"quality": 30, "subsampling": 2},
        "progressive.jpg": {"progressive": True},
        "restarts.jpg": {"restart_marker_rows": 1},
        "frame.png": {},
        "frame.webp": {"quality": 80},
    }
    for frame, (name, options) in zip(frames, settings.items(), strict=True):
        Image.fromarray(frame).save(folder / name, **options)
    Image.fromarray(frames[0][:, :, 0]).save(folder / "gray.jpg")
    Image.fromarray(frames[1]).save(folder / "frame.bmp")
    return [*settings, "gray.jpg", "frame.bmp"]


def picture_problem(value: Value, whole: Value) -> str | None:
    shape, kind, _ = value
    good = len(shape) == 3 and shape[2] in (1, 3) and min(shape) > 0 and kind == "uint8"
    return None if good else f"a picture of shape {shape}, {kind}"


def read_by_torchvision(folder: Path, file: str) -> Value:
    picture = read_tensor(str(folder / file), "L" if file.startswith("gray") else "RGB")
    return digest(picture.permute(1, 2, 0).numpy())


def read_by_pillow(folder: Path, file: str) -> Value:
    return digest(np.asarray(read_image(str(folder / file))))


def make_clip(folder: Path) -> list[str]:
    """A video as a folder of frames, all of which a clip takes, and its list."""
    make_frame_folder(folder / "root" / "video", 4, (64, 48))
    make_list(folder / "list.txt", [("video", 4, 3)])
    return [f"root/video/img_{number:05d}.jpg" for number in range(1, 5)]


def clip_reader(backend: str, *, train: bool) -> Callable[[Path, str], Value]:
    def read(folder: Path, file: str) -> Value:
        dataset = TSNDataSet(
            folder / "root", folder / "list.txt", 4, transform=transform, random_shift=train, test_mode=not train,
            image_backend=backend, num_class=NUM_CLASSES, seed=4,
        )  # fmt: skip
        clip, label = dataset[0]
        return digest(clip), label

    transform = train_transform(32, "RGB", True) if train else test_transform(32, 36)
    return read


def same_shape(value: Value, whole: Value) -> str | None:
    """(digest, label): pixels may differ."""
    if value[0][:2] != whole[0][:2] or value[1:] != whole[1:]:
        return f"{value[0][:2]}, {value[1:]} instead of {whole[0][:2]}, {whole[1:]}"
    return None


# --- videos -----------------------------------------------------------------------------------------------------------

VIDEOS = {"a.mp4": "libx264", "b.mp4": "mpeg4", "c.webm": "libvpx", "d.avi": "mpeg4", "e.mkv": "mjpeg"}


def make_videos(folder: Path) -> list[str]:
    for seed, (name, codec) in enumerate(VIDEOS.items()):
        frames = make_frames(NUM_FRAMES, (64, 48), seed)
        (folder / "root").mkdir(exist_ok=True)
        if codec == "mjpeg":
            _make_mjpeg(folder / "root" / name, frames)
        else:
            make_video(folder / "root" / name, frames, codec=codec)
        make_list(folder / f"{name}.txt", [(name, NUM_FRAMES, seed)])
    return [f"root/{name}" for name in VIDEOS]


def _make_mjpeg(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def read_video_clip(folder: Path, file: str) -> Value:
    """As --io video does, with a segment for every frame, on a list that check_dataset has passed.

    AVI has no checksums and no times of its own: of a stretch that is there twice only the count tells.
    """
    dataset = TSNDataSet(
        folder / "root", folder / f"{Path(file).name}.txt", NUM_FRAMES, test_mode=True, io="video",
        num_class=NUM_CLASSES, transform=test_transform(32, 36),
    )  # fmt: skip
    frames = tuple(digest(frame) for frame in dataset[0][0])
    problem = check_video(dataset.video_list[0], dataset=dataset, decode="some").problem
    if problem is not None:
        raise InputError(problem)
    return frames


def video_problem(value: Value, whole: Value) -> str | None:
    """Damaged pixels may pass, also the picture before where a frame's changes are lost (value[i] == value[i - 1]);
    never is another frame of the video in a frame's place."""
    if [entry[:2] for entry in value] != [entry[:2] for entry in whole]:
        return "other shapes, or another number of frames"
    moved = [(i, whole.index(entry)) for i, entry in enumerate(value) if entry in whole and whole[i] != entry]
    moved = [(i, j) for i, j in moved if not (i == j + 1 and value[i] == value[j])]
    return f"in the place of frame {moved[0][0]} is frame {moved[0][1]}" if moved else None


def read_by_extraction(folder: Path, file: str) -> Value:
    frames = folder / "frames"
    try:
        count = extract_video((folder / file, frames), Extraction("img_{:05d}.jpg", 0))
    except InputError:
        if frames.exists():
            raise RuntimeError("refused, but its folder is there") from None
        raise
    paths = sorted(frames.iterdir())
    if [path.name for path in paths] != [f"img_{number:05d}.jpg" for number in range(1, count + 1)]:
        raise RuntimeError(f"{count} frames, {len(paths)} files")
    return count, tuple(zlib.crc32(path.read_bytes()) for path in paths)


def extracted_problem(value: Value, whole: Value) -> str | None:
    """No more can be told: a header that lost its frame count hides a cut, AVI also a stretch that is there twice."""
    return None if value[0] > 0 else "no frames"


def read_as_source(folder: Path, file: str) -> Value:
    """As the demo's --source: a video file, or the folder of a frame."""
    path = folder / file
    source = open_source(str(path.parent if path.suffix == ".jpg" else path))
    return tuple(digest(image) for image in source.frames())


def source_problem(value: Value, whole: Value) -> str | None:
    bad = [entry for entry in value if picture_problem(entry, None)]
    return f"a frame {bad[0]}" if bad or not value else None


# --- checkpoints, scores ----------------------------------------------------------------------------------------------


def _network() -> TSN:
    torch.manual_seed(1)
    return TSN(NUM_CLASSES, 4, "RGB", base_model="resnet18", pretrain="none", is_shift=True, print_spec=False)


_TEMPLATE: list[torch.nn.Module] = []


def _small_state() -> dict[str, Any]:
    rng = np.random.RandomState(0)
    weights = {f"module.base_model.layer{i}.0.conv{j}.weight": torch.from_numpy(rng.randn(8, 4, 3, 3)).float()
               for i in (1, 2, 3) for j in (1, 2)}  # fmt: skip
    weights |= {"module.base_model.bn1.num_batches_tracked": torch.tensor(7)}
    weights |= {"module.new_fc.weight": torch.randn(NUM_CLASSES, 8), "module.new_fc.bias": torch.randn(NUM_CLASSES)}
    momentum = {index: {"momentum_buffer": torch.randn(8, 4)} for index in range(4)}
    options = {"dataset": "kinetics", "arch": "resnet18", "num_class": NUM_CLASSES, "class_names": list("abcde")}
    return {"epoch": 4, "arch": "resnet18", "state_dict": weights, "best_prec1": 61.25, "options": options,
            "optimizer": {"state": momentum, "param_groups": [{"lr": 0.01, "params": [0, 1, 2, 3]}]}}  # fmt: skip


def checkpoint_maker(*, zip_format: bool) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        torch.manual_seed(0)
        full, bare = _small_state(), {key: value + 1 for key, value in _small_state()["state_dict"].items()}
        for name, data in (("full.pth.tar", full), ("bare.pth", bare)):
            torch.save(data, folder / name, _use_new_zipfile_serialization=zip_format)
        return ["full.pth.tar", "bare.pth"]

    return make


def _plain(value: Any) -> Any:
    """Nested data with tensors as digests."""
    if isinstance(value, torch.Tensor):
        return digest(value.contiguous().numpy())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_checkpoint(folder: Path, file: str) -> Value:
    found = load_checkpoint(folder / file)
    options = found.known_options.to_dict() if found.known_options else None
    return (
        _plain(found.state_dict),
        found.epoch,
        found.best_prec1,
        options,
        _plain(found.optimizer),
        _plain(found.extra),
    )


def make_network(folder: Path) -> list[str]:
    torch.save({"state_dict": _network().state_dict()}, folder / "net.pth", _use_new_zipfile_serialization=False)
    return ["net.pth"]


def read_into_network(folder: Path, file: str) -> Value:
    """The old format has no checksums: what it holds must fit the network key by key, or it is refused."""
    if not _TEMPLATE:
        _TEMPLATE.append(_network())
    load_into(_TEMPLATE[0], load_checkpoint(folder / file))
    return {key: digest(value.numpy()) for key, value in _TEMPLATE[0].state_dict().items()}


def same_keys_and_shapes(value: Value, whole: Value) -> str | None:
    forms = [{key: entry[:2] for key, entry in weights.items()} for weights in (value, whole)]
    return None if forms[0] == forms[1] else "other keys or shapes"


def make_scores(folder: Path) -> list[str]:
    for seed, name in enumerate(("rgb.npz", "flow.npz")):
        rng = np.random.RandomState(seed)
        names = [f"val/class {index % NUM_CLASSES}/video_{index}" for index in range(40)]
        labels = np.arange(40) % NUM_CLASSES
        Scores(names, labels, rng.randn(40, NUM_CLASSES).astype(np.float32)).save(folder / name)
    return ["rgb.npz", "flow.npz"]


def read_scores(folder: Path, file: str) -> Value:
    scores = Scores.load(folder / file)
    return scores.names, scores.labels.tolist(), digest(scores.scores)


def make_weights(folder: Path) -> list[str]:
    save_random(folder / "net.pth.tar", class_names=list("abcde"))
    return ["net.pth.tar"]


def read_weights(folder: Path, file: str) -> Value:
    model = load_model(folder / file)
    return model.class_names, model.input_size, [digest(weight.numpy()) for weight in model.stream.parameters()]


def media_readers() -> Iterator[Reader]:
    """Pictures, videos, checkpoints, scores."""
    yield Reader("picture, torchvision", make_pictures, read_by_torchvision, picture_problem, 6)
    yield Reader("picture, pillow", make_pictures, read_by_pillow, picture_problem, 6)
    for backend in ("torchvision", "pillow"):
        for train in (True, False):
            name = f"clip of frames, {backend}, {'training' if train else 'test'}"
            yield Reader(name, make_clip, clip_reader(backend, train=train), same_shape, 2)
    yield Reader("video, check_dataset and --io video", make_videos, read_video_clip, video_problem, 6)
    yield Reader("video, vid2img", make_videos, read_by_extraction, extracted_problem, 5)
    yield Reader("video, demo --source", make_videos, read_as_source, source_problem, 4)
    yield Reader("checkpoint, zip", checkpoint_maker(zip_format=True), read_checkpoint, nothing_may_differ, 6)
    yield Reader("checkpoint, old format", checkpoint_maker(zip_format=False), read_checkpoint, anything_goes, 5)
    yield Reader("checkpoint, old format, into a network", make_network, read_into_network, same_keys_and_shapes, 1)
    yield Reader("demo --weights", make_weights, read_weights, nothing_may_differ, 1)
    yield Reader("scores .npz", make_scores, read_scores, nothing_may_differ, 6)
    yield Reader("demo --source, folder", make_clip, read_as_source, source_problem, 1)
