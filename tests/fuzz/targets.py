"""What is fuzzed: every reader of a file, with valid files to start from.

A target takes any bytes. It may accept them or raise a PysimError whose message a terminal can show; anything
else is a finding: another exception, a crash, a hang, or more memory than ``MEMORY_BYTES``.

The readers are imported by the targets' makers, so that a fuzzer can instrument them before.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Feed = Callable[[bytes], None]

# No file of a few kilobytes may make a reader take more than this.
MEMORY_BYTES = 512 << 20
_MESSAGE_CHARACTERS = 20_000
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Target:
    """One reader.

    Args:
        name: As in ``python -m tests.fuzz NAME``.
        make: Imports the reader; what it returns feeds it bytes.
        seeds: Valid inputs, and a few that are nearly so.
        words: What mutations may put in.
        longest: Longest input, in bytes.
    """

    name: str
    make: Callable[[], Feed]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    longest: int = 4096


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Lets a PysimError pass if its message is fit to print."""
    from pysim.errors import PysimError

    try:
        yield
    except PysimError as error:
        for text in (str(error), error.hint or ""):
            assert text.isprintable() or text.replace("\n", "").isprintable(), f"unprintable: {text!r}"
            assert len(text) < _MESSAGE_CHARACTERS, f"a message of {len(text)} characters"


def _file(suffix: str) -> Path:
    """A path for the bytes of one process, in memory where there is such a place."""
    place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="pysim-fuzz-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / f"input{suffix}"


def _use(accelerator: object) -> None:
    """Hardware that passed its checks can be simulated, or says why it cannot, and can be shown as JSON."""
    import numpy as np

    from pysim.sim import simulate_layer
    from pysim.workload import BlockGrid

    grid = BlockGrid(m=5, k=6, bh=2, bw=2)
    simulate_layer(grid, np.eye(3, dtype=bool), 4, accelerator)


def _hardware_file() -> Feed:
    from pysim.config import load_hardware
    from pysim.report.hardware import hardware_json

    path = _file(".toml")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            hardware = load_hardware(str(path))
            json.dumps(hardware_json(hardware), allow_nan=False)
            _use(hardware.accelerator)

    return feed


def _presets() -> list[bytes]:
    from pysim import config

    files = sorted((Path(config.__file__).parent / "presets").glob("*.toml"))
    return [b"name = 'a'\narray = { rows = 2, cols = 3 }\n", *(path.read_bytes() for path in files)]


def _override() -> Feed:
    from pysim.config import load_hardware

    def feed(data: bytes) -> None:
        with refusals():
            _use(load_hardware("4x8", data.decode(errors="surrogateescape").split("\n")).accelerator)

    return feed


def _imported(suffix: str) -> Callable[[], Feed]:
    def make() -> Feed:
        from pysim.config import import_hardware, load_hardware

        path, imported = _file(suffix), _file(".toml")

        def feed(data: bytes) -> None:
            path.write_bytes(data)
            text = None
            with refusals():
                text = import_hardware(path)
            if text is not None:  # what was accepted is a hardware file, whatever it was made of
                imported.write_text(text)
                _use_if_it_fits(load_hardware(str(imported)).accelerator)

        return feed

    return make


def _use_if_it_fits(accelerator: object) -> None:
    with refusals():
        _use(accelerator)


def _scalesim_files() -> list[bytes]:
    whole = b"""[general]
run_name = scale_example

[architecture_presets]
ArrayHeight:    32
ArrayWidth:     16
IfmapSramSzkB:  64
FilterSramSzkB: 64
OfmapSramSzkB:  64
IfmapOffset:    0
Dataflow : ws
Bandwidth : 10
MemoryBanks: 1

[run_presets]
InterfaceBandwidth: USER
"""
    return [whole, whole.replace(b"USER", b"CALC"), whole.replace(b"SramSzkB", b"SramSz")]


def _onnxim_files() -> list[bytes]:
    core = {"core_type": "systolic_ws", "core_width": 8, "core_height": 4}
    core |= {"spad_size": 64, "accum_spad_size": 16}
    chip: dict[str, object] = {"num_cores": 2, "core_freq": 1000, "precision": 2, "dram_freq": 800}
    chip |= {"dram_channels": 4, "dram_req_size": 32}
    named = chip | {"dram_nbl": 2, "core_config": {"core_0": core, "core_1": core}}
    return [json.dumps(chip | core).encode(), json.dumps(named).encode()]


def _idx(dims: int, *, packed: bool = False) -> Callable[[], Feed]:
    def make() -> Feed:
        from pysim.data.idx import read_idx

        path = _file("-ubyte")

        def feed(data: bytes) -> None:
            # Mutations of a packed file seldom reach the parser: they are made before the file is packed.
            path.write_bytes(gzip.compress(data, 1, mtime=0) if packed else data)
            with refusals():
                array = read_idx(path, dims=dims)
                assert array.ndim == dims
                assert array.size <= len(data)

        return feed

    return make


def _idx_file(*shape: int) -> bytes:
    body = bytes(range(256)) * 4
    size = 1
    for side in shape:
        size *= side
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + body[:size]


def _idx_gz() -> Feed:
    from pysim.data.idx import read_idx

    path = _file("-ubyte.gz")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            read_idx(path, dims=3)

    return feed


def _idx_gz_files() -> list[bytes]:
    files = [_idx_file(2, 5, 7), _idx_file(0, 28, 28), _idx_file(2, 5, 7) + bytes(100)]
    return [gzip.compress(file, level, mtime=0) for file in files for level in (0, 9)]


def _idx_folder() -> Feed:
    """Four files from one input, each with a length before it."""
    from pysim.data.idx import load_idx_folder

    folder = _file("").parent
    names = [
        f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]

    def feed(data: bytes) -> None:
        stream = io.BytesIO(data)
        for name in names:
            length = int.from_bytes(stream.read(2), "little")
            (folder / name).write_bytes(stream.read(length))
        with refusals():
            dataset = load_idx_folder(folder)
            dataset.padded(max(32, *dataset.image_size))
            dataset.fingerprint()

    return feed


def _idx_folders() -> list[bytes]:
    def joined(*files: bytes) -> bytes:
        return b"".join(len(file).to_bytes(2, "little") + file for file in files)

    labels = _idx_file(2)
    images = _idx_file(2, 5, 7)
    return [joined(images, labels, images, labels), joined(images, labels, _idx_file(2, 0, 7), labels)]


def _cifar() -> Feed:
    from pysim.data.cifar10 import read_cifar10_batch

    path = _file(".bin")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            images, labels = read_cifar10_batch(path)
            assert len(images) == len(labels) == len(data) // 3073

    return feed


def _safetensors() -> Feed:
    from pysim.training import load_tensors

    path = _file(".safetensors")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            tensors, note = load_tensors(path)
            assert isinstance(note, dict)
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 2 * len(data)

    return feed


def _safetensors_header() -> Feed:
    """The header alone is mutated; its length is right, and 64 bytes follow."""
    feed_file = _safetensors()
    return lambda data: feed_file(struct.pack("<Q", len(data)) + data + bytes(range(64)))


def _headers() -> list[bytes]:
    entries = [
        {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}},
        {
            "__metadata__": {"pysim": '{"accuracy": 1.5, "masks": {}}', "sha256": "0" * 64},
            "mask.a": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
        },
        {
            "b": {"dtype": "BF16", "shape": [2, 0, 3], "data_offsets": [0, 0]},
            "c": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
            "d": {"dtype": "F8_E4M3", "shape": [56], "data_offsets": [8, 64]},
        },
    ]
    more = {"BOOL": 64, "I8": 64, "F16": 32, "F64": 8, "U16": 32, "C64": 8, "U64": 8, "F4": 128}
    more |= {"F8_E8M0": 64, "F8_E5M2": 64, "F6_E2M3": 64, "F6_E3M2": 64}
    entries += [{"a": {"dtype": d, "shape": [n], "data_offsets": [0, 64]}} for d, n in more.items()]
    return [json.dumps(entry).encode() for entry in entries]


def _safetensors_files() -> list[bytes]:
    return [struct.pack("<Q", len(header)) + header + bytes(64) for header in _headers()]


def _note() -> Feed:
    """A file whose tensors are right and whose note is anything."""
    import torch
    from safetensors.torch import save

    from pysim.training import load_tensors

    path = _file(".safetensors")
    tensors = {"a": torch.arange(6.0), "mask.a": torch.arange(3, dtype=torch.uint8)}

    def feed(data: bytes) -> None:
        text = data.decode(errors="ignore")
        path.write_bytes(save(tensors, {"pysim": text, "sha256": text[:64]}))
        with refusals():
            load_tensors(path)
        path.write_bytes(save(tensors, {"pysim": text}))
        with refusals():
            _rebuild(load_tensors(path)[1])

    return feed


def _rebuild(note: dict[str, object]) -> None:
    import numpy as np

    from pysim.pruning import rebuild_masks

    with contextlib.suppress(ValueError):  # what rebuild_masks says it raises
        rebuild_masks(note.get("masks"), {"a": np.arange(3, dtype=np.uint8)})


def _notes() -> list[bytes]:
    grid = {"groups": 1, "m": 6, "k": 12, "positions": 1, "bh": 2, "bw": 2}
    notes = [
        {},
        {"accuracy": 91.5, "before_finetune": 10, "masks": {"a": grid}},
        {"masks": {"a": grid | {"groups": 2, "m": 4, "k": 10}}},
        {"settings": {"epochs": 3, "seed": 0, "identity": "x"}, "step": 7, "seen": 128},
    ]
    return [json.dumps(note).encode() for note in notes]


def _state() -> Feed:
    """A saved state of training whose note and one tensor are anything."""
    import torch
    from safetensors.torch import save

    from pysim.training.hooks import StepHook
    from pysim.training.state import load_state

    path = _file(".state")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = {"epochs": 3, "seed": 0}

    def feed(data: bytes) -> None:
        kind, dtype, length, rest = data[:1], data[1:2], data[2:3], data[3:]
        name = _STATE_TENSORS[int.from_bytes(kind, "big") % len(_STATE_TENSORS)]
        types = (torch.uint8, torch.float32, torch.int64, torch.bool)
        tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
        tensors |= {"random": torch.get_rng_state(), "loss_sum": torch.zeros(())}
        size = 8 * int.from_bytes(length, "big")
        if name == "random":  # of the right length, or no mutation would ever pass the first check
            raw = tensors[name].numpy().tobytes()
            raw = (rest[:size] + raw[size:])[: len(raw)].ljust(len(raw), b"\0")
        else:
            raw = (bytes(8) + rest)[:size].ljust(8, b"\0")
        tensors[name] = torch.frombuffer(bytearray(raw[: len(raw) // 8 * 8]), dtype=torch.uint8)
        if name != "random":
            tensors[name] = tensors[name].view(types[int.from_bytes(dtype, "big") % len(types)])
        path.write_bytes(save(tensors, {"pysim": rest.decode(errors="ignore")}))
        with torch.random.fork_rng(devices=[]), refusals():
            load_state(path, model, optimizer, StepHook(), settings, 100)

    return feed


def _pruned_file() -> Feed:
    """A pruned network's file whose tensors are right and whose note is anything."""
    from safetensors.torch import save

    from pysim.training import load_tensors
    from pysim.training.pruned_file import load_pruned

    path = _file(".safetensors")
    model = _tiny_pruned(path)
    tensors, _ = load_tensors(path)

    def feed(data: bytes) -> None:
        path.write_bytes(save(tensors, {"pysim": data.decode(errors="ignore")}))
        with refusals():
            load_pruned(path, "mlp", model)

    return feed


def _tiny_pruned(path: Path) -> torch.nn.Module:
    """Writes a pruned network of two layers."""
    import torch

    from pysim.pruning import PruneConfig, element_masks, prune_one_shot
    from pysim.training import apply_masks
    from pysim.training.pruned_file import save_pruned

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    prune = PruneConfig(block=(2, 2), sparsity=0.5, prune_all=True)
    masks = prune_one_shot(model, prune)
    apply_masks(model, element_masks(model, masks))
    save_pruned(path, "mlp", model, masks, prune, {"dense_accuracy": 90.0})
    return model


def _pruned_notes() -> list[bytes]:
    from pysim.training import load_tensors

    path = _file(".safetensors")
    _tiny_pruned(path)
    return [json.dumps(load_tensors(path)[1]).encode()]


def _study() -> Feed:
    from pysim.runner.study import load_study

    path = _file("").parent / "config.toml"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            load_study(path.parent)

    return feed


def _studies() -> list[bytes]:
    folder = Path(__file__).parent.parent.parent / "experiments"
    return [path.read_bytes() for path in sorted(folder.glob("*/config.toml"))]


def _results() -> Feed:
    from pysim.report.figure import load_trade_off

    path = _file(".json")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            load_trade_off(path)

    return feed


def _result_files() -> list[bytes]:
    """Recorded results, of which only the first points are kept."""
    folder = Path(__file__).parent.parent.parent / "experiments"
    seeds = [b"{}"]
    for path in sorted(folder.glob("*/results/*.json")):
        results = json.loads(path.read_text())
        seeds.append(json.dumps(_shortened(results)).encode())
    return seeds


def _expected() -> Feed:
    from pysim.result import Expected, read_json

    path = _file(".json")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            Expected.from_json(str(path), read_json(path, 1 << 20, "file of expected accuracies"))

    return feed


def _expected_files() -> list[bytes]:
    folder = Path(__file__).parent.parent.parent / "experiments"
    return [path.read_bytes() for path in sorted(folder.glob("*/expected/*.json"))]


def _tuning() -> Feed:
    from pysim.sparse.tuning import read_tuning

    path = _file(".json")

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with refusals():
            found = read_tuning(path, {"cpu": "a"})
            for height, n in ((1, 1), (4, 64), (2**40, 2**40)):
                found.break_even(height, n)

    return feed


def _tunings() -> list[bytes]:
    row = {"height": 4, "n": 64, "sparsity": [0.1, 0.2, 0.3]}
    return [
        json.dumps({"schema": 1, "machine": {"cpu": "a"}, "rows": rows}).encode() for rows in ([], [row, row])
    ]


def _shortened(value: object) -> object:
    if isinstance(value, list):
        return [_shortened(item) for item in value[:2]]
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return value


_STATE_TENSORS = ("model.weight", "random", "loss_sum", "momentum.bias", "hook.a", "other")


def _states() -> list[bytes]:
    note = json.dumps({"settings": {"epochs": 3, "seed": 0}, "step": 7, "seen": 128}).encode()
    return [bytes([i, 0, 0]) + note for i in range(len(_STATE_TENSORS))]


_TOML_WORDS = (
    b"[array]\n",
    b"rows = ",
    b"extends = ",
    b"[sources]\n",
    b"[memory.dram]\n",
    b'"24 MiB"',
    b"nan",
)
_JSON_WORDS = (b'"core_config"', b"1e999", b"NaN", b"null", b"true", b'"\\ud800"', b"{}", b"[]", b"-1")
_HEADER_WORDS = (b'"data_offsets"', b'"shape"', b'"dtype"', b'"__metadata__"', b"[0, 0]", b'"F32"', b"F4")

TARGETS = {
    target.name: target
    for target in (
        Target("hardware-toml", _hardware_file, _presets, _TOML_WORDS, longest=8192),
        Target(
            "hardware-set",
            _override,
            lambda: [
                b"array.rows=64\nmemory.bandwidth=10GB/s",
                b"array.reorder=true",
                b"memory.latency=3 cycles",
            ],
            (b"array.", b"memory.", b" MiB", b"GB/s", b"=unlimited"),
            longest=400,
        ),
        Target("scalesim-cfg", _imported(".cfg"), _scalesim_files, (b"[general]\n", b"SramSz : ", b"%(a)s")),
        Target("onnxim-json", _imported(".json"), _onnxim_files, _JSON_WORDS),
        Target("idx", _idx(3), lambda: [_idx_file(2, 5, 7), _idx_file(0, 28, 28)]),
        Target("idx-packed", _idx(1, packed=True), lambda: [_idx_file(9), _idx_file(9) + b"more"]),
        Target("idx-gz", _idx_gz, _idx_gz_files),
        Target("idx-folder", _idx_folder, _idx_folders),
        Target("cifar10", _cifar, lambda: [bytes(3073), b"\x09" * 6146, bytes(3072)], longest=10_000),
        Target("safetensors", _safetensors, _safetensors_files, _HEADER_WORDS),
        Target("safetensors-header", _safetensors_header, _headers, _HEADER_WORDS),
        Target("note", _note, _notes, _JSON_WORDS),
        Target("training-state", _state, _states, _JSON_WORDS),
        Target("pruned-file", _pruned_file, _pruned_notes, _JSON_WORDS),
        Target("study-toml", _study, _studies, (b"[preset.", b"[common]\n", b"nan", b"[[", b"= 1e999")),
        Target("results-json", _results, _result_files, _JSON_WORDS, longest=16_384),
        Target("expected-json", _expected, _expected_files, _JSON_WORDS),
        Target("tuning", _tuning, _tunings, _JSON_WORDS),
    )
}
