"""A bundle: a folder with a trained model as ONNX graphs, all that a device needs to run it, and a way to prove it (floor 0).

    bundle.json            format, kind, precision, sampling, preprocessing, special ids, tolerances, the parity report, the versions
                           and the SHA-256 of every other file; its last entry is its own
    *.onnx                 the graphs; the same facts are in their metadata
    tokenizer.json  golden.npz   the tokenizer; inputs with the outputs that the trained model gave for them
    infer_onnx.py and the modules in CODE, requirements-jetson.txt   what runs it, without torch

No file of a bundle is used before its checksum is found right: a zeroed block of weights loads, runs and lies.
"""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import files
from files import UserError

FORMAT = 1
CODE = ("infer_onnx.py", "bundle.py", "runtime.py", "config.py", "files.py", "images.py", "tokenizer.py",
        "requirements-jetson.txt")
AGAIN = "copy the bundle again, or export it again with export_onnx.py"
LEFT_BEHIND = {"__pycache__", "engines"}
OWN = re.compile(rb'"checksum": "([0-9a-f]{64})"')


def contents(folder: Path) -> list[Path]:
    """The files that a bundle's checksums are about: all but bundle.json and what running it leaves behind."""
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in inside if path.name != "bundle.json" and not LEFT_BEHIND & set(path.relative_to(folder).parts)]


def seal(folder, facts: dict) -> None:
    """Write bundle.json: these facts, the size and SHA-256 of every file, and its own checksum. The last thing that an export does."""
    folder = Path(folder)
    listed = {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": files.file_digest(path).hex()} for path in contents(folder)}
    text = json.dumps({"format": FORMAT, **facts, "files": listed, "checksum": "0" * 64}, indent=2, ensure_ascii=False) + "\n"
    own = hashlib.sha256(text.encode()).hexdigest()
    files.write_text(folder / "bundle.json", text.replace("0" * 64, own))


def read(folder) -> dict:
    """bundle.json, after a look at its own checksum. Raises UserError if it is damaged or of another format."""
    path = files.existing(Path(folder) / "bundle.json", "a bundle made by export_onnx.py", "name its folder with --bundle")
    facts = files.read_json(path, "a bundle's description", AGAIN)
    if facts.get("format") != FORMAT:
        raise UserError(f"{path} of format {facts.get('format')!r}", f"format {FORMAT}", "use the release that wrote it, or export again")
    raw = path.read_bytes()
    found = OWN.findall(raw)
    if len(found) != 1 or hashlib.sha256(raw.replace(found[0], b"0" * 64)).hexdigest() != found[0].decode():
        raise UserError(f"{path}, which was changed", "the file as it was exported", AGAIN)
    return facts


def check(folder, facts: dict) -> int:
    """Compare every file with its checksum, on all cores; return how many. Raises UserError for one that is missing or changed."""
    folder = Path(folder)

    def problem(item) -> str | None:
        path, about = folder / item[0], item[1]
        if not path.exists():
            return f"no {path}"
        size = path.stat().st_size
        if size != about["bytes"]:
            return f"{path} of {size:,} bytes, not {about['bytes']:,}"
        return None if files.file_digest(path).hex() == about["sha256"] else f"{path}, which was changed"

    with ThreadPoolExecutor() as pool:
        for found in pool.map(problem, facts["files"].items()):
            if found:
                raise UserError(found, f"the {len(facts['files'])} files as they were exported", AGAIN)
    return len(facts["files"])
