"""Run names and options: built as published, read back from the name alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ops.checkpoint.options import ModelOptions, options_from_name, store_name
from ops.common.errors import InputError

KINETICS = ModelOptions(dataset="kinetics", arch="resnet50", num_segments=8)
SHIFT = dataclasses.replace(KINETICS, is_shift=True)


def _changed(options: ModelOptions = SHIFT, **changes: object) -> ModelOptions:
    return dataclasses.replace(options, **changes)


NAMES = [
    (KINETICS, {}, "TSM_kinetics_RGB_resnet50_avg_segment8_e50"),
    (SHIFT, {}, "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50"),
    (_changed(shift_div=4, shift_place="block"), {}, "TSM_kinetics_RGB_resnet50_shift4_block_avg_segment8_e50"),
    (_changed(KINETICS, dense_sample=True, non_local=True), {}, "TSM_kinetics_RGB_resnet50_avg_segment8_e50_dense_nl"),
    (_changed(temporal_pool=True), {}, "TSM_kinetics_RGB_resnet50_shift8_blockres_tpool_avg_segment8_e50"),
    (_changed(KINETICS, temporal_pool=True), {}, "TSM_kinetics_RGB_resnet50_tpool_avg_segment8_e50"),
    (_changed(online=True), {}, "TSM_kinetics_RGB_resnet50_shift8_blockres_online_avg_segment8_e50"),
    (
        _changed(online=True, temporal_pool=True, consensus_type="identity"),
        {},
        "TSM_kinetics_RGB_resnet50_shift8_blockres_online_tpool_identity_segment8_e50",
    ),
    (SHIFT, {"lr_type": "cos"}, "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50_cos"),
    (
        _changed(dense_sample=True, non_local=True),
        {"pretrain": "none", "lr_type": "cos", "suffix": "my_try_2"},
        "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50_none_cos_dense_nl_my_try_2",
    ),
    (
        _changed(arch="resnext50_32x4d", dataset="ucf101"),
        {},
        "TSM_ucf101_RGB_resnext50_32x4d_shift8_blockres_avg_segment8_e50",
    ),
    (_changed(KINETICS, arch="wide_resnet50_2"), {}, "TSM_kinetics_RGB_wide_resnet50_2_avg_segment8_e50"),
    (
        _changed(arch="BNInception", shift_place="011111110000"),
        {},
        "TSM_kinetics_RGB_BNInception_shift8_011111110000_avg_segment8_e50",
    ),
    (
        _changed(dataset="moving_digits", arch="mobilenetv2", num_segments=16),
        {},
        "TSM_moving_digits_RGB_mobilenetv2_shift8_blockres_avg_segment16_e50",
    ),
    (_changed(dataset="my_RGB_avg_set"), {}, "TSM_my_RGB_avg_set_RGB_resnet50_shift8_blockres_avg_segment8_e50"),
    (ModelOptions(dataset="a", modality="Flow"), {}, "TSM_a_Flow_resnet50_avg_segment8_e50"),
    (ModelOptions(dataset="a", modality="RGBDiff"), {}, "TSM_a_RGBDiff_resnet50_avg_segment8_e50"),
    (ModelOptions(dataset="somethingv2"), {"pretrain": ""}, "TSM_somethingv2_RGB_resnet50_avg_segment8_e50_none"),
    (
        ModelOptions(dataset="a", non_local=True),
        {"pretrain": "/data/my nets/net_v2 $(x).pth.tar"},
        "TSM_a_RGB_resnet50_avg_segment8_e50_net-v2-x_nl",
    ),
]


@pytest.mark.parametrize(("options", "rest", "name"), NAMES, ids=[name for _, _, name in NAMES])
def test_names_are_built_as_published_and_read_back(options: ModelOptions, rest: dict[str, str], name: str) -> None:
    assert store_name(options, epochs=50, **rest) == name
    for file in (name, f"{name}.pth", f"{name}.pth.tar", f"/a/TSM_x_Flow_resnet18_avg_segment1_e1_nl/{name}.pt"):
        assert options_from_name(file) == options


def test_streaming_file_is_known_by_its_name() -> None:
    options = options_from_name("x/mobilenetv2_jester_online.pth.tar")
    assert (options.dataset, options.arch, options.num_class) == ("jester", "mobilenetv2", 27)
    assert (options.is_shift, options.shift_div, options.online) == (True, 8, True)


@pytest.mark.parametrize(
    "name",
    [
        "ckpt.best.pth.tar",
        "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50/other/ckpt.best.pth.tar",
        "TSM_kinetics_RGB_resnet50_shift8_avg_segment8",
        "TSM_kinetics_Depth_resnet50_avg_segment8_e50.pth",
        "tsm_kinetics_RGB_resnet50_avg_segment8_e50.pth",
        "resnet50-0676ba61.pth",
        "",
    ],
)
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(InputError, match=r"rename it .* such as TSM_kinetics_RGB_resnet50_shift8_blockres_avg"):
        options_from_name(name)


def test_numbers_out_of_range_in_a_name_are_refused() -> None:
    with pytest.raises(InputError, match="num_segments must be a whole number of 1 or more, not 0"):
        options_from_name("TSM_a_RGB_resnet50_avg_segment0_e50.pth")


def test_flag_words_count_only_in_their_places() -> None:
    stem = "TSM_nl_dense_RGB_resnet50_avg_segment8_e50"
    read = {
        flags: options_from_name(stem + flags) for flags in ("", "_my_nl", "_nlx", "_none_nl", "_cos_dense", "_dense")
    }
    # The pretrain word is free: nl after it is the flag.
    assert [flags for flags, o in read.items() if o.non_local] == ["_my_nl", "_none_nl"]
    assert [flags for flags, o in read.items() if o.dense_sample] == ["_cos_dense", "_dense"]


@pytest.mark.parametrize(
    "bad",
    [{"suffix": "a/b"}, {"suffix": "..\\x"}, {"suffix": "a\nb"}, {"suffix": "x" * 250}],
)
def test_suffixes_that_cannot_be_in_a_name_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(InputError):
        store_name(KINETICS, epochs=50, **bad)


def test_options_are_plain_data_and_tolerate_other_versions() -> None:
    options = _changed(class_names=["a", "b"], num_class=2, dropout=0, flip=False, image_tmpl="{:05d}.jpg")
    data = options.to_dict()
    assert ModelOptions.from_dict({**data, "from_the_future": 1, "img_feature_dim": 256}) == options
    assert ModelOptions.from_dict({"dataset": "x"}) == ModelOptions(dataset="x")
    data["class_names"].append("c")
    assert options.class_names == ["a", "b"]


@pytest.mark.parametrize(("name", "value"), [("modality", "Depth"), ("num_segments", 0), ("num_class", "5")])
def test_bad_options_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}.*{value!r}"):
        ModelOptions.from_dict({"dataset": "a", name: value})


def test_published_training_output_is_known_by_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for options, rest, name in NAMES:
        folder = tmp_path / store_name(options, epochs=50, **rest)
        assert folder.name == name
        for file in ("ckpt.best.pth.tar", "ckpt.pth.tar"):
            assert options_from_name(folder / file) == options
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert options_from_name("ckpt.best.pth.tar") == options


def test_the_files_own_name_comes_before_its_folders() -> None:
    inside = Path("TSM_something_RGB_resnet50_avg_segment8_e45") / "TSM_a_Flow_resnet18_avg_segment4_e1.pth"
    assert options_from_name(inside) == ModelOptions(dataset="a", modality="Flow", arch="resnet18", num_segments=4)
    streaming = Path("TSM_something_RGB_resnet50_avg_segment8_e45") / "mobilenetv2_jester_online.pth.tar"
    assert options_from_name(streaming).dataset == "jester"
