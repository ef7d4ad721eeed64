"""Feeds every target its seeds, every finding of the past, and some mutations: python -m tests.fuzz.replay"""

from __future__ import annotations

import random
import sys

from tests.fuzz.__main__ import REGRESSIONS
from tests.fuzz.one import limit_memory, mutated, problem_with
from tests.fuzz.targets import TARGETS

MUTATIONS = 300


def main() -> None:
    feeds = {name: target.make() for name, target in TARGETS.items()}
    seeds = {name: target.seeds() for name, target in TARGETS.items()}
    problems = []
    for name, feed in feeds.items():
        for data in seeds[name]:
            problems.append((f"{name}, a seed", problem_with(feed, data)))
    limit_memory()
    rng = random.Random(0)
    for name, feed in feeds.items():
        for path in sorted((REGRESSIONS / name).glob("*")):
            problems.append((str(path), problem_with(feed, path.read_bytes())))
        for i in range(MUTATIONS):
            data = mutated(rng, seeds[name], TARGETS[name].words, TARGETS[name].longest)
            problems.append((f"{name}, mutation {i}: {data[:200]!r}", problem_with(feed, data)))
    said = [f"{what}\n{problem}" for what, problem in problems if problem]
    if said:
        sys.exit("\n\n".join(said))
    print(f"{len(problems)} inputs for {len(feeds)} readers")


if __name__ == "__main__":
    main()
