"""What `--help` says: every option explained, its default shown."""

from __future__ import annotations

import argparse

import pytest

import ops.opts
import opts
from ops.network.backbones import BACKBONES
from ops.opts import test_parser as make_test_parser
from ops.opts import train_parser


@pytest.fixture(params=["main.py", "test_models.py"])
def parser(request):
    return train_parser() if request.param == "main.py" else make_test_parser()


def test_every_option_has_a_help_text_and_shows_its_default(parser):
    formatter = parser._get_formatter()
    for action in parser._actions:
        assert action.help and action.help is not argparse.SUPPRESS, action.dest
        shown = formatter._expand_help(action)
        if action.option_strings and action.default not in (None, False, "", argparse.SUPPRESS):
            values = action.default if isinstance(action.default, list) else [action.default]
            assert "default" in shown or all(str(value) in shown for value in values), action.dest


def test_help_answers_what_there_is_to_choose():
    text = " ".join(train_parser().format_help().split())
    assert all(arch in text for arch in BACKBONES) and "(default: BNInception)" in text
    actions = {flag: action for action in make_test_parser()._actions for flag in action.option_strings}
    for flag in ("--test_segments", "--test_list", "--root_path", "--image_tmpl", "--coeff"):
        assert "a comma list has one for each net" in actions[flag].help, flag


def test_published_options_that_do_nothing_say_so():
    for make, flags in (
        (train_parser, ("--k", "--img_feature_dim", "--snapshot_pref", "--flow_prefix")),
        (make_test_parser, ("--img_feature_dim", "--num_set_segments", "--pretrain")),
    ):
        actions = {flag: action for action in make()._actions for flag in action.option_strings}
        assert all(actions[flag].help == "accepted and ignored" for flag in flags)


def test_the_parser_by_its_published_names():
    assert opts.parser is ops.opts.parser
    args = opts.parser.parse_args(["kinetics", "RGB", "--arch", "resnet50", "--gd", "20", "--npb"])
    assert (args.arch, args.clip_gradient, args.no_partialbn, args.img_feature_dim) == ("resnet50", 20.0, True, None)
