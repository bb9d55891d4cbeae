"""Record demonstrations of a simulated arm, and still moments that teach words.

Reads   nothing
Writes  data_robot/ (--out): demos/ (a LeRobot dataset v3.0), stills/, tokenizer.json, meta.json

A minute or two on a laptop, without OpenGL: what a simulator knows, and no images:
    python prep_robot_demos.py --num_demos 200 --num_stills 4000 --image_side 0
With a camera's images (five minutes; docs/robot.md names the packages that OpenGL needs):
    python prep_robot_demos.py
The arm SO-101 at a table of half the size, without images:
    python prep_robot_demos.py --world so101 --num_demos 800 --image_side 0 --out data_so101
Ten tasks of Meta-World, 50 demonstrations each, without images:
    python prep_robot_demos.py --world metaworld --num_demos 500 --num_stills 2000 --image_side 0

It needs `pip install -r requirements-robot.txt`. The expert is disturbed while it records, so the
demonstrations show how to recover; the recorded actions are the undisturbed ones.
"""

import sys
from pathlib import Path

from base import files, flags, folders, words
from base.files import UserError
from robot import metaworld_demos, so101_demos, stills, table_demos
from robot.demos import Demos

SOURCES = {"table": table_demos, "so101": so101_demos, "metaworld": metaworld_demos}


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Demos)
    return parser.parse_args(argv)


def is_there(out: Path, facts: dict) -> bool:
    """Whether the folder is finished. Raises UserError if it is of other settings."""
    name = "meta.json" if (out / "meta.json").exists() else "settings.json"
    if not (out / name).exists():
        return False
    before = files.read_json(out / name, "the settings of the folder", "remove the folder")
    if any(before.get(key) != value for key, value in facts.items()):
        raise UserError(
            f"data with other settings in {out}",
            "the same flags, or a folder of its own",
            "choose another --out, or remove it",
        )
    return name == "meta.json"


def main(argv=None):
    demos = flags.resolve(Demos, parse_args(argv))
    out = files.claim(files.writable_folder(demos.out))
    facts = flags.to_dict(demos)
    facts.pop("out")
    if is_there(out, facts):
        print(f"{out}: all is there", file=sys.stderr)
    else:
        # First of all: a stopped run is continued with the same settings only.
        files.write_json(out / "settings.json", facts)
        make(demos, out, facts)
    print(f"{out}: {demos.num_demos:,} demonstrations, {demos.num_stills:,} stills")
    print("next: " + files.python("train_grounding.py", "--data_dir", out))


def make(demos: Demos, out: Path, facts: dict) -> None:
    """Record and draw everything; meta.json comes last."""
    source = SOURCES[demos.world]
    tokenizer = words.from_texts(source.all_words())
    failed = source.record_demos(demos, out / "demos")
    print(f"{failed} episodes of the expert failed, and were drawn again", file=sys.stderr)
    source.draw_stills(demos, out / "stills", tokenizer)
    names = [*stills.PARTS, *(("images", "pixels") if demos.image_side else ())]
    sizes = {"stills": demos.num_stills, "demos": demos.num_demos}
    facts = facts | {"splits": sizes, "failed": failed}
    folders.seal(out, "robot", tokenizer, [f"stills/{name}.npy" for name in names], facts)


if __name__ == "__main__":
    files.run(main)
