"""Names of classes from a file."""

import pytest

from ops.common.class_names import read_class_names
from ops.common.errors import InputError


def test_as_many_names_as_classes(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("wave\n\nclap\n", encoding="utf-8")
    assert read_class_names(path, 2) == read_class_names(path) == ["wave", "clap"]
    with pytest.raises(InputError, match=r"names\.txt has 2 names, the network 1 class: give a line for each class"):
        read_class_names(path, 1)
