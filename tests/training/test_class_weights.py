"""Weights of classes by hand, and the files that do not hold them."""

import pytest

from ops.common.errors import InputError
from ops.training.class_weights import class_weights


def test_no_weights_unless_asked_for():
    assert class_weights("", [0, 1], 2) is None


def test_auto_makes_every_class_count_the_same():
    assert class_weights("auto", [0, 0, 0, 1], 2) == pytest.approx((2 / 3, 2))
    one, without, three = class_weights("auto", [0, 2, 2, 2], 3)
    assert (one, three) == pytest.approx((2, 2 / 3)) and without > 0


def test_of_a_file_only_the_ratios_matter(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_bytes(b"\xef\xbb\xbf10\n 30.0\r\n\n")  # as a Windows editor saves it, with an empty line at the end
    # 3 clips of weight 1 and 1 of weight 3 weigh 6 / 4 in the mean.
    assert class_weights(str(path), [0, 0, 0, 1], 2) == pytest.approx((1 / 1.5, 3 / 1.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n0\n", r"weights\.txt:2: '0' is not a number above 0, the weight of class 1"),
        ("nan\n1\n", r"weights\.txt:1: 'nan'"),
        ("inf\n1\n", r"weights\.txt:1: 'inf'"),
        ("1\n\n2\n", r"weights\.txt:2: ''"),
        ("1\n", "has 1 weight for 2 classes: give a line for each, in label order"),
        (b"\xff\xfe1", "cannot read .*: not a text file"),
        (None, r"cannot read --class_weights .*weights\.txt: No such file or directory \(or give auto\)"),
    ],
)
def test_a_file_without_a_weight_for_each_class(tmp_path, content, message):
    path = tmp_path / "weights.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        class_weights(str(path), [0, 1], 2)
