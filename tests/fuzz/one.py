"""Fuzzes one target in this process, and ends at the first finding: python -m tests.fuzz.one NAME ..."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import random
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from tests.fuzz.targets import MEMORY_BYTES, TARGETS, Feed

ROOT = Path(__file__).parent.parent.parent
SLOWEST_SECONDS = 5
# What readers are made of; a fuzzer that follows their branches gets further.
_FOLLOWED = ["pysim", "tomllib", "configparser", "gzip", "json", "safetensors"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True, help="inputs that reach new branches, kept")
    parser.add_argument("--found", type=Path, required=True, help="where a finding goes")
    parser.add_argument("--blind", action="store_true", help="mutate without looking at branches")
    given = parser.parse_args()
    for folder in (given.corpus, given.found):
        folder.mkdir(parents=True, exist_ok=True)
    run = _blind if given.blind else _follow
    run(given.name, given.seconds, given.corpus, given.found)


class _SourceFinder:
    """Finds pysim's sources where they lie: the loader of an editable install cannot be instrumented."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != "pysim" or name == "pysim._core":
            return None
        return PathFinder.find_spec(name, path or [str(ROOT)], target)


def limit_memory() -> None:
    """From here on, more than ``MEMORY_BYTES`` on top of what is taken is a MemoryError."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _follow(name: str, seconds: int, corpus: Path, found: Path) -> None:
    """Coverage-guided, through libFuzzer."""
    import atheris

    target = TARGETS[name]
    sys.meta_path.insert(0, _SourceFinder())
    with atheris.instrument_imports(include=_FOLLOWED):
        feed = target.make()
    seeds = corpus.parent / f"{corpus.name}-seeds"
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(seed)
        feed(seed)  # whatever the reader imports or caches is there before memory is limited
    words = seeds.with_suffix(".dict")
    lines = [*target.words, b"\0"]  # libFuzzer refuses an empty list
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in lines))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={SLOWEST_SECONDS}",
        f"-artifact_prefix={found}/",
        f"-dict={words}",
        "-len_control=0",
        "-rss_limit_mb=0",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    limit_memory()
    atheris.Setup([sys.argv[0], *options, str(corpus), str(seeds)], _keeping(feed, found))
    atheris.Fuzz()


def _keeping(feed: Feed, found: Path) -> Feed:
    """``feed`` that writes down what it cannot take: libFuzzer does not do so after every exception."""

    def keeping(data: bytes) -> None:
        try:
            feed(data)
        except Exception:
            _keep(found, data)
            raise

    return keeping


def _keep(found: Path, data: bytes) -> None:
    (found / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _blind(name: str, seconds: int, corpus: Path, found: Path) -> None:
    """For a Python that atheris does not know: mutations of the seeds and of what earlier runs kept."""
    target = TARGETS[name]
    feed = target.make()
    pool = target.seeds() + [path.read_bytes() for path in sorted(corpus.iterdir())]
    for seed in pool:
        feed(seed)
    limit_memory()
    rng = random.Random(time.time_ns())
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(rng, pool, target.words, target.longest)
        problem = problem_with(feed, data)
        done += 1
        if problem:
            _keep(found, data)
            sys.exit(problem)
    print(f"stat::number_of_executed_units: {done}", file=sys.stderr)


def problem_with(feed: Feed, data: bytes) -> str:
    """What is wrong with how ``data`` was taken; empty if nothing is."""
    faulthandler.dump_traceback_later(10 * SLOWEST_SECONDS, exit=True)
    started = time.monotonic()
    try:
        feed(data)
    except Exception:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    taken = time.monotonic() - started
    return f"took {taken:.1f} s" if taken > SLOWEST_SECONDS else ""


def mutated(rng: random.Random, pool: list[bytes], words: tuple[bytes, ...], longest: int) -> bytes:
    """One of ``pool`` with a few changes: bytes flipped, cut, doubled, put in, or joined with another one."""
    data = bytearray(rng.choice(pool))
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 2, 4, 16, 64)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:to]
        elif kind == 2:
            data[at:at] = data[at:to]
        elif kind == 3:
            data[at:to] = rng.choice((b"\0", b"\xff", b"0", b"9", b"\n", b'"', b"-")) * rng.choice((1, 4, 8))
        elif kind == 4:
            data[at:at] = rng.choice(words or (b"\x7f",))
        else:
            other = rng.choice(pool)
            data[at:] = other[rng.randint(0, len(other)) :]
    return bytes(data[:longest])


if __name__ == "__main__":
    main()
