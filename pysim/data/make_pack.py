"""Makes the embedded Fashion-MNIST pack from the four IDX files.

python -m pysim.data.make_pack /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import sys
from pathlib import Path

from pysim.data.embedded import CHECKSUM, PACK, write_pack
from pysim.data.idx import load_idx_folder
from pysim.errors import PysimError


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        write_pack(load_idx_folder(Path(sys.argv[1])), PACK, CHECKSUM)
    except PysimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{PACK}: {PACK.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
