"""Lists for something-something v1, from its csv files as they are distributed.

    python tools/gen_label_sthv1.py data/something/v1/20bn-something-something-v1 --out data/something/v1 \\
        --annotations data/something/v1

reads something-something-v1-{labels,train,validation,test}.csv (or labels.csv, ...; lines `id;label`, for test `id`)
and writes {train,val,test}_videofolder.txt and category.txt; with --flow, ROOT being the flow's, the flow lists, which
count x and y files. Labels follow the sorted names. Test videos have no label: their list says 0. Neither they nor
their csv file need be there. Videos are looked for in ROOT and in ROOT/{train,val,test}.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.common.errors import run_command
from tools.shared.csv_lists import gen_label_from_csvs


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists; returns 1 if a video could not be counted."""
    return gen_label_from_csvs(argv, doc=__doc__, dataset="something", prefix="something-something-v1")


if __name__ == "__main__":
    run_command(main)
