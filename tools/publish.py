"""Publish a checkpoint: a folder that the Hugging Face hub takes, and that every script reads.

Reads   a checkpoint (--checkpoint): text, caption or conditional, a denoiser or its twin
Writes  a folder (--out): model.safetensors, config.json, tokenizer.json, README.md (a model card)

Seconds on a laptop:
    python -m tools.publish --checkpoint checkpoints/best.pt --out published
For the hub, with the name that the model card shows in its commands:
    python -m tools.publish --checkpoint checkpoints/best.pt --out published --name OWNER/NAME

Every flag that takes a checkpoint takes the folder, and hub:OWNER/NAME. The folder holds the
averaged weights alone, so it writes the same texts, and no run can be resumed from it.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from base import __version__, files, flags, metrics
from base.files import UserError
from base.flags import setting
from loop import checkpoint, published
from loop.contracts import Checkpoint
from net import image_encoders

HOME = "https://github.com/diffusion-llm/diffusion-llm"


@dataclass(frozen=True)
class Task:
    """What the model card says of a kind of checkpoint.

    hub: the hub's word for the task. does: what the model does. command: a script and its flags.
    """

    hub: str
    does: str
    command: tuple[str, ...]


TASKS = {
    "text": Task("text-generation", "writes texts", ("generate.py", "--num_samples", "5")),
    "caption": Task(
        "image-to-text", "captions images", ("generate_caption.py", "--image", "picture.png")
    ),
    "dialogue": Task(
        "visual-question-answering",
        "answers questions about images",
        ("chat.py", "--image", "picture.png"),
    ),
    "conditional": Task(
        "text-generation",
        "writes the missing parts of a text",
        ("generate_conditional.py", "--prompt", "Once upon a time"),
    ),
}
OBJECTIVES = {
    "diffusion": "a masked-diffusion model: it starts from masks and fills many in each call",
    "ar": "an autoregressive model: it writes from left to right",
}


@dataclass
class Publishing:
    """What is published, and how."""

    checkpoint: str | None = setting(
        None, "needed: the checkpoint to publish, such as best.pt", metavar="CHECKPOINT"
    )
    out: str = setting("published", "folder to write", metavar="FOLDER")
    name: str | None = setting(
        None, "OWNER/NAME on the hub, for the commands of the model card", metavar="OWNER/NAME"
    )
    license: str = setting("mit", "license of the weights, as the hub writes it")
    language: str = setting("en", "language of the texts, as the hub writes it", metavar="CODE")
    encoder: str | None = setting(
        None,
        "captions: the image encoder's name on the hub, if the checkpoint names a folder",
        metavar="NAME",
    )
    force: bool = setting(False, "write over the files of a published folder, its card too")

    def __post_init__(self):
        flags.check(self)
        if not self.checkpoint:
            do = "name one with --checkpoint"
            raise UserError("no --checkpoint", "a checkpoint to publish, such as best.pt", do)
        if self.name and not published.HUB.fullmatch(f"hub:{self.name}"):
            raise UserError(f"--name {self.name}", "OWNER/NAME", "correct it, or leave it out")
        for flag in ("license", "language"):
            # They become lines of YAML.
            if not getattr(self, flag).replace("-", "").replace(".", "").isalnum():
                found = f"--{flag} {getattr(self, flag)!r}"
                raise UserError(found, "letters, digits, points and hyphens", "correct it")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Publishing)
    return parser.parse_args(argv)


def without_folders(values: dict) -> dict:
    """Flags without the folders of this machine: of a path only the last name stays."""
    kept = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = PureWindowsPath(value).name  # it splits at both kinds of slashes
        kept[name] = value
    return kept


def named_encoder(saved: Checkpoint, name: str | None) -> dict:
    """The entry `encoder` of a captioner, with a name that other machines know.

    name: the value of --encoder. Raises UserError if the encoder is a folder of this machine.
    """
    encoder = saved["encoder"]
    if name is None and encoder["encoder"] != image_encoders.EMBEDDED:
        path = Path(encoder["encoder"])
        if path.is_absolute() or path.exists() or ".." in path.parts:
            raise UserError(
                f"the image encoder {path}, a folder of this machine",
                "a name on the hub, which other machines know",
                "publish the encoder too, and name it with --encoder OWNER/NAME",
            )
    return {**encoder, "encoder": name or encoder["encoder"]}


def to_publish(saved: Checkpoint, options: Publishing) -> Checkpoint:
    """The checkpoint without this machine's paths. Raises UserError as `named_encoder`."""
    result: Checkpoint = {**saved, "flags": without_folders(saved.get("flags", {}))}
    if saved["kind"] in ("caption", "dialogue"):
        result["encoder"] = named_encoder(saved, options.encoder)
    elif options.encoder:
        kind = saved["kind"]
        expected = "a model that reads images"
        raise UserError(f"--encoder for a {kind} checkpoint", expected, "drop --encoder")
    return result


def facts_of(saved: Checkpoint, parameters: int) -> list[list[str]]:
    """The rows of the card's table of facts, its header first."""
    size, data = saved["model"], saved.get("data", {})
    facts = {
        "kind": f"{saved['kind']}, {saved['objective']}",
        "parameters": f"{parameters:,}",
        "layers × width": f"{size['layers']} × {size['d_model']}",
        "longest text": f"{size['max_length']} tokens",
        "vocabulary": f"{size['vocab_size']} tokens (byte-level BPE)",
        "trained for": f"{saved.get('step')} steps",
        "seed": saved.get("seed"),
        "fingerprint of the training data": data.get("fingerprint"),
        "fingerprint of the tokenizer": data.get("tokenizer"),
        "code": f"version {__version__}, commit {saved.get('git')}",
    }
    if saved.get("encoder"):
        encoder = saved["encoder"]
        facts["image encoder"] = f"{encoder['encoder']}, key {encoder['key']}"
    if "form" in saved:
        facts["form of the rows"] = saved["form"]
    return [["fact", "value"], *([name, str(value)] for name, value in facts.items())]


def figures_of(saved: Checkpoint) -> list[list[str]]:
    """The rows of the card's table of figures, its header first."""
    measured = (saved.get("metrics") or {}).items()
    rows = [[f"`val_{name}`", f"{value:.4f}"] for name, value in measured]
    return [["figure", "value"], *(rows or [["none", "–"]])]


def card(saved: Checkpoint, options: Publishing, parameters: int) -> str:
    """The model card, a README.md: facts, figures and commands. No figure is computed here."""
    task = TASKS[saved["kind"]]
    title = options.name or Path(options.out).absolute().name
    style = "autoregressive" if saved["objective"] == "ar" else "masked-diffusion"
    # Only the folder's name: the path to it is this machine's.
    where = f"hub:{title}" if options.name else title
    score = ["python", "evaluate.py", "--checkpoint", where, "--data_dir", "DATA"]
    lines = [
        "---",
        f"license: {options.license}",
        f"language: {options.language}",
        f"pipeline_tag: {task.hub}",
        f"library_name: {published.MODEL_TYPE}",
        f"tags: [{published.MODEL_TYPE}, {style}]",
        "---",
        f"# {title}",
        f"This model {task.does}. It is {OBJECTIVES[saved['objective']]}.",
        "",
        metrics.markdown(facts_of(saved, parameters)),
        "",
        "## Figures",
        "Measured on held-out data during training. [logs.md]"
        f"({HOME}/blob/main/docs/logs.md) explains them.",
        "",
        metrics.markdown(figures_of(saved)),
        "",
        "## Use",
        f"With the code of [diffusion-llm]({HOME}):",
        "```bash",
        shlex.join(["python", *task.command, "--checkpoint", where]),
        shlex.join(score),
        "```",
        "DATA is a data folder with the fingerprint of the tokenizer in the table.",
        "`config.json` holds the settings of the run, and checksums of all tensors and values.",
        "",
    ]
    return "\n".join(lines)


def main(argv=None):
    options = flags.resolve(Publishing, parse_args(argv))
    model, _, saved = checkpoint.open_model(options.checkpoint)
    # As readers take them: the averaged weights, if there are any.
    kept = to_publish({**saved, "weights": model.state_dict()}, options)
    text = card(kept, options, model.num_parameters())
    # No lock file: everything in the folder goes to the hub.
    out = files.writable_folder(options.out)
    there = [name for name in published.NAMES if (out / name).exists()]
    if there and not options.force:
        raise UserError(
            f"{out / there[0]}", "a folder without it", "choose another --out, or add --force"
        )
    published.write(out, kept, text)
    checkpoint.open_model(out)  # reads it back, and compares all checksums
    print(f"done: {out}")
    print(f"next: {shlex.join(['hf', 'upload', options.name or 'OWNER/NAME', str(out)])}")


if __name__ == "__main__":
    files.run(main)
