"""The examples of docs/kernels.md and docs/cuda.md run and print what they say; tables are the code's."""

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kernels.md"


def test_examples_of_the_kernels_page_are_true():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0
    assert attempted > 0


def test_examples_of_the_cuda_page_are_true_and_the_tests_it_names_exist():
    page = ROOT / "docs" / "cuda.md"
    failed, attempted = doctest.testfile(str(page), module_relative=False)
    assert failed == 0
    assert attempted > 0
    for name in re.findall(r"`(tests/[a-z_/]+\.py)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_tiles_on_the_page_are_those_of_the_sources():
    sources = (
        "avx2",
        "avx512",
        "emulated16",
        "int8_avx2",
        "int8_avx_vnni",
        "int8_avx512_vnni",
        "int8_emulated16",
    )
    for file in sources:
        name = file.removeprefix("int8_")
        source = (ROOT / "csrc" / "kernels" / f"{file}.cpp").read_text()
        tiles = re.search(r"kTileVectors\[.*\] = \{0, (.*)\};", source)[1]
        lanes = re.search(r"kLanes = (\d+);", source)[1]
        assert f"| `{name}` | {lanes} | {tiles} |" in PAGE.read_text()
