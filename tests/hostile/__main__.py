"""`python -m tests.hostile KIND ... --count N`: how seeded cases of each kind ended."""

import argparse

from tests.hostile.drive import drive, faults, summary
from tests.hostile.kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    options = parser.parse_args()
    failed = False
    for kind in options.kinds or KINDS:
        seeds = range(options.first, options.first + options.count)
        outcomes = drive(KINDS[kind], seeds)
        print(f"{kind}: {summary(outcomes)}", flush=True)
        if found := faults(outcomes):
            failed = True
            print(found)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
