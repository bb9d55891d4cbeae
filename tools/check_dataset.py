"""Check a LeRobot dataset v3.0: every file, every frame, every statistic.

Reads   a folder with a LeRobot dataset v3.0, ours or anybody's
Writes  its faults to the screen, a line each; without a fault, what the dataset holds

486 frames of 64 × 64 pixels took 0.2 seconds:
    python -m tools.check_dataset FOLDER

The exit status is 0 without a fault, 1 with faults, and 2 if the folder holds no such dataset.
"""

from base import files, flags
from robot import checking, layout
from robot.checking import Report


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="the dataset: it holds meta/info.json")
    parser.add_argument(
        "--show",
        type=int,
        default=20,
        metavar="FAULTS",
        help="print at most this many faults (default 20)",
    )
    return parser.parse_args(argv)


def summary(report: Report) -> list[str]:
    """What a dataset holds, as lines."""
    info = report.info
    counts = f"{info['total_episodes']} episodes, {info['total_frames']} frames"
    lines = [f"{counts}, {info['fps']} per second"]
    for name, feature in info["features"].items():
        if name not in layout.COUNTERS:
            shape = " × ".join(map(str, feature["shape"]))
            lines.append(f"feature {name}: {feature['dtype']} {shape}")
    first = ", ".join(repr(task) for task in report.tasks[:3])
    more = ", ..." if len(report.tasks) > 3 else ""
    lines.append(f"tasks {len(report.tasks)}: {first}{more}")
    return lines


def main(argv=None):
    options = parse_args(argv)
    report = checking.inspect(options.folder)
    for note in report.notes:
        print(f"note: {note}")
    for fault in report.faults[: options.show]:
        print(fault)
    hidden = len(report.faults) - options.show
    if hidden > 0:
        print(f"and {hidden} more: give --show {len(report.faults)}")
    if report.faults:
        print(f"{len(report.faults)} faults")
        return 1
    print("\n".join(summary(report)))
    print("no faults")
    return 0


if __name__ == "__main__":
    files.run(main)
