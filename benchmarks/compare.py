"""Compare this package with the alternatives of a user: a table of ratios, and targets.

All contenders get the same images and the same server. Each run of a contender is a process of its
own, and the contenders take turns, so that noise of the machine affects all alike. Figures are
medians of the rounds. docs/benchmarks.md explains the comparisons.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mapped import mapped
from sections import Bench, faults, growth, quota, shared, speed
from table import Target, print_targets
from workers import worker_environment

SECTIONS: dict[str, Callable[[Bench], list[Target]]] = {
    "speed": speed,
    "quota": quota,
    "shared": shared,
    "faults": faults,
    "growth": growth,
    "mapped": mapped,
}


def main() -> int:
    """Measure, print the tables and return the exit code."""
    arguments = _parser().parse_args()
    targets: list[Target] = []
    with worker_environment() as environment:
        bench = Bench(
            environment,
            repeats=arguments.repeats or (1 if arguments.quick else 5),
            is_quick=arguments.quick,
            images=arguments.images,
        )
        for name in arguments.only or SECTIONS:
            targets += SECTIONS[name](bench)
    print_targets(targets)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images, one round")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="only these comparisons")
    parser.add_argument("--repeats", type=int, help="number of rounds (default: 5; 1 with --quick)")
    parser.add_argument("--images", type=int, help="number of images in every comparison")
    return parser


if __name__ == "__main__":
    sys.exit(main())
