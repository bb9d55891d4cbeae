"""What every trainer does before and after the loop: its folder, settings, refusals and last lines.

The order matters under torchrun. A trainer first reads and checks everything that needs no other
process (`read_run`, the data, the refusals). Every process then refuses the same mistakes by
itself. Only then do the processes meet (`begin`).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from base import files, flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from loop import adapter_files, board, checkpoint, distributed
from loop.contracts import Checkpoint, Data
from loop.hardware import choose_device, keep_freed_memory


@dataclass
class RunFolder:
    """The run."""

    out: str = setting("checkpoints", "run folder", metavar="FOLDER")
    config: str | None = setting(
        None, "JSON file of settings, such as another run's config.json", metavar="FILE"
    )
    resume: str | None = setting(
        None,
        "continue from resume.pt in --out; auto: or begin, for torchrun --max-restarts",
        choices=("must", "auto"),
        bare="must",
    )

    def __post_init__(self):
        flags.check(self)


@dataclass
class Setup:
    """What a trainer knows of its run before any data is read.

    arguments: the flags that were given. file: the settings in --config. resume: the content of the
    state to continue from, or None. state: the path of the state that is in the folder, or None.
    """

    arguments: flags.Arguments
    out: Path
    file: dict[str, Any]
    resume: Checkpoint | None
    state: Path | None

    def own(self, kind: Any) -> Any:
        """The trainer's own flags, a dataclass `kind`; a resumed run keeps its own."""
        # Old checkpoints hold no `flags`.
        # The flags of the first start apply unless this start gives a flag again.
        kept = self.resume.get("flags", {}) if self.resume else {}
        return flags.resolve(kind, self.arguments, self.file, kept)

    def model_config(self, size: dict[str, Any]) -> ModelConfig:
        """The architecture: `size`, then --config, then the resumed run's, then flags."""
        # The run outranks --config, because the weights have the run's sizes.
        kept = self.resume["model"] if self.resume else {}
        return flags.resolve(ModelConfig, self.arguments, size, self.file, kept)

    def train_config(self) -> TrainConfig:
        """The settings of the loop: --config, then the resumed run's, then flags.

        Raises UserError for --tensorboard without TensorBoard: here it costs no time.
        """
        kept: dict[str, Any] = {}
        if self.resume:
            # A run in two stages stores the settings of the stage, and those of both stages apart.
            kept = self.resume["train"] | self.resume.get("both_stages", {})
        cfg = flags.resolve(TrainConfig, self.arguments, self.file, kept)
        if cfg.tensorboard:
            board.require()
        return cfg


def read_run(
    arguments: flags.Arguments,
    kinds: tuple[str, ...],
    states: Sequence[str] = ("resume.pt",),
) -> Setup:
    """The run folder, --config, and the state to continue from.

    kinds: of checkpoints that this trainer continues. states: where a state may be in the folder,
    the latest first. Raises UserError if there is no state to continue from, or a state would be
    overwritten.
    """
    asked: RunFolder = flags.resolve(RunFolder, arguments)
    # --config itself is a flag: it is resolved first, and the settings in its file second.
    file = flags.read_config_file(asked.config, arguments.parser)
    asked = flags.resolve(RunFolder, arguments, file)
    out = Path(asked.out)
    paths = [out / name for name in states]
    state = next((path for path in paths if path.exists()), None)
    # A forgotten --resume must not overwrite days of training.
    if state and not asked.resume:
        raise UserError(
            f"a run in {out}",
            "an empty run folder",
            "continue with --resume, or choose another --out",
        )
    resume = None
    # "must" without a state still calls `load`, whose error names the file that is missing.
    # `auto` without a state begins: torchrun can restart a run with the command that began it.
    if asked.resume == "must" or state:
        resume = checkpoint.load(state or paths[0], kinds=kinds, do="start a run without --resume")
    return Setup(arguments, out, file, resume, state)


def refuse_other_data(data_dir: str, what: str, current: Sequence[str], run: Sequence[str]) -> None:
    """Raise UserError unless the fingerprints of the data are those of the resumed run.

    what: a word for the data, such as "captions". current, run: the fingerprints of both.
    """
    # Step s of other data is another batch, so the run would equal no straight run.
    if list(current) != list(run):
        raise UserError(
            f"{data_dir} with other {what} ({' '.join(current)})",
            f"the data of the run ({' '.join(run)})",
            "resume with the same --data_dir",
        )


def refuse_other_model(resume: Checkpoint, model_config: ModelConfig, objective: str) -> None:
    """Raise UserError unless architecture and objective are those of the resumed run."""
    # Refused here, because torch would name tensors and not flags.
    if (model_config, objective) != (checkpoint.model_config(resume), resume["objective"]):
        raise UserError(
            "flags for another model or objective",
            "the model that is being resumed",
            "drop the model's flags or choose another --out",
        )


def begin(setup: Setup, cfg: TrainConfig, own: Any, *configs: Any) -> torch.device:
    """Meet the other processes, claim the folder, write the settings, choose the device.

    own: the trainer's own flags, which are printed. configs: the dataclasses that config.json
    holds, each without the fields that are no flags. Raises UserError, in all processes, if one of
    them must.
    """
    # After the refusals: a process that ends while the others meet breaks their connections.
    distributed.start()
    # Before anything is written: another run in the folder keeps its config.json.
    distributed.claim(setup.out)
    settings: dict[str, Any] = {}
    for config in configs:
        settings |= flags.to_dict(config)
    with distributed.refusing_together():  # a full disk is met by the leader alone
        if distributed.leads():
            flags.show("settings", flags.to_dict(own) | settings)
            groups = setup.arguments.parser.groups
            names = [name for config in configs for name in groups[type(config).__name__]]
            files.write_json(setup.out / "config.json", {name: settings[name] for name in names})
    return start_torch(cfg)


def start_torch(cfg: TrainConfig) -> torch.device:
    """Set torch's threads and seed, choose and print the device."""
    # Steps are 1.3 to 1.4 times as fast on the Xeon (docs/log/scaling.md).
    keep_freed_memory()  # before the first large tensor, or it has no effect on that one
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    torch.manual_seed(cfg.seed)  # of the first weights; later draws have generators of their own
    device = distributed.own_gpu(choose_device(cfg.device))
    several = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    threads = torch.get_num_threads()
    distributed.say(f"device: {device}{several}, {threads} CPU threads, torch {torch.__version__}")
    return device


def about(
    kind: str,
    objective: str,
    model_config: ModelConfig,
    data: Data,
    statistics: dict[str, Any],
    own: Any,
) -> Checkpoint:
    """The part of a checkpoint that stays the same over the run (see loop/checkpoint.py)."""
    fingerprints = {
        "fingerprint": data.meta["fingerprint"],
        "tokenizer": data.tokenizer.fingerprint,
    }
    return {
        "kind": kind,
        "objective": objective,
        "model": flags.to_dict(model_config),
        "statistics": statistics,
        # The whole tokenizer: a reader then needs no file but the checkpoint.
        "tokenizer": data.tokenizer.to_json(),
        "data": fingerprints,
        "flags": flags.to_dict(own),
    }


def end(
    out: Path,
    metrics: dict[str, float],
    script: str,
    words: Sequence[str] = (),
    flag: str = "--checkpoint",
) -> None:
    """Print the best checkpoint, its figures and the next command; leave the others.

    script: what reads the checkpoint next. flag: names the checkpoint. words: flags after it.
    """
    figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    best = out / "best.pt"
    if distributed.leads():
        write_adapter(best)
    distributed.say(f"done: {best}  {figures}", file=sys.stdout)
    command = files.python(script, flag, best, *words)
    distributed.say(f"next: {command}", file=sys.stdout)
    distributed.finish()


def write_adapter(best: Path) -> None:
    """Write the adapter of a checkpoint beside it, if it has an adapter."""
    if not best.exists():
        return
    saved = checkpoint.read(best, "cpu", checkpoint.ANOTHER)
    if saved.get("model", {}).get("lora_rank"):
        path = best.with_name(adapter_files.NAME)
        tokenizer = Tokenizer.from_json(saved["tokenizer"]).fingerprint
        adapter_files.write(path, cast(Checkpoint, saved), tokenizer)
        distributed.say(f"adapter: {path}", file=sys.stdout)
