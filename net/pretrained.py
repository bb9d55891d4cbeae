"""Networks that transformers reads: loaded whole, or refused in one line.

transformers draws a weight at random where a file has none, and says so in a warning only. Features
of such a network are noise, so `load_model` counts these weights and refuses them. A config.json of
a few bytes could ask for all memory of the machine, so `check_size` comes first.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from base import files
from base.files import UserError

# Weights of pooling layers. Many folders lack them, and no feature reads them: SigLIP's is `head`.
POOLING = ("pooler.", "head.")
# A layer is an object of Python even before it has weights: a million layers take minutes and
# gigabytes. The deepest networks known have about 130.
MOST_LAYERS = 1000
MOST_PARAMETERS = 20e9  # the largest image encoder known has 18 billion
LARGEST_SIDE = 8192  # pixels
# The image processor of a kind, where the folder names none.
PROCESSORS = {
    "clip": "CLIPImageProcessor",
    "clip_vision_model": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor",
    "vit": "ViTImageProcessor",
    "dinov2": "BitImageProcessor",
}
WEIGHTS = (".safetensors", ".bin")
# What `settings_of` returns, and what every image processor has.
SETTINGS = (
    "size",
    "crop_size",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "resample",
)


@contextlib.contextmanager
def reading(name: str, what: str, do: str) -> Iterator[None]:
    """Turn any error of transformers into a UserError of one line.

    name: the folder or hub name. what: what was wanted of it, such as "image encoder". do: what the
    user can do.
    """
    try:
        yield
    except UserError:
        raise
    # safetensors, pickle, zipfile, json and the checks of configurations share no base class.
    except Exception as error:
        refuse_pointers(name)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        plain = isinstance(error, OSError | ValueError)
        reason = lines[0] if plain else f"{type(error).__name__}: {lines[0]}"
        raise UserError(
            f"no {what} {name} ({reason[:300]})",
            "a hub name or a local folder that transformers reads, with whole files",
            do,
        ) from error


def refuse_pointers(folder) -> None:
    """Raise UserError for the first file of a folder that is a pointer of git-lfs."""
    for path in sorted(Path(folder).glob("*")):
        if files.is_pointer(path):
            raise UserError(
                f"{path}, a pointer of git-lfs in the place of the file",
                "the file itself",
                "run `git lfs pull` in that folder, or download the file",
            )


def quiet_transformers() -> ModuleType:
    """transformers, without its warnings and bars: an error is to be the only line."""
    import transformers  # two seconds, which the embedded encoder spares

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def kind_of(name: str) -> str:
    """transformers' name of the kind of a model, such as "clip". Runs no code of the folder."""
    transformers = quiet_transformers()
    return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False).model_type


def load_model(class_name: str, name: str, **more: Any) -> nn.Module:
    """The network of this class with the weights of a folder or hub name.

    more: for its configuration. Raises UserError if a weight is missing, or has another shape. A
    pooling layer may be missing: it is set to zero, because nothing reads it.
    """
    transformers = quiet_transformers()
    check_size(class_name, name, **more)
    model, about = getattr(transformers, class_name).from_pretrained(
        name,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are counted below, together with missing weights
        **more,
    )
    weights = model.state_dict()
    missing = [key for key in about["missing_keys"] if key in weights]
    # (name, shape in the file, shape in the network)
    mismatched = [entry[0] for entry in about["mismatched_keys"]]
    unread = [key for key in missing if key.startswith(POOLING) or f".{POOLING[0]}" in key]
    wrong = sorted({*missing, *mismatched} - set(unread))
    if wrong:
        raise UserError(
            f"{name} with {len(wrong)} of {len(weights)} weights missing or of another shape "
            f"({described(wrong[0], mismatched, about['unexpected_keys'])})",
            f"every weight of a {class_name}",
            "get the model's own files, or save the network again under its own names",
        )
    with torch.no_grad():
        for key in unread:
            weights[key].zero_()  # random weights would change the encoder's key at every start
    return model


def check_size(class_name: str, name: str, **more: Any) -> None:
    """Raise UserError if a config.json describes a network that its files cannot fill."""
    model_class = getattr(quiet_transformers(), class_name)
    config = model_class.config_class.from_pretrained(name, **more)
    layers = most_layers(config.to_dict())
    expected = "a config.json that fits the weights"
    do = "get the model's own files"
    if layers > MOST_LAYERS:
        raise UserError(f"{name} with {layers:,} layers", expected, do)
    with torch.device("meta"):  # shapes alone
        model = model_class(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    refuse_pointers(name)
    # A weight takes a byte at least. Files on the hub are not here yet.
    held = sum(path.stat().st_size for path in Path(name).glob("*") if path.suffix in WEIGHTS)
    if parameters > MOST_PARAMETERS or (held and parameters > held):
        files_here = f" and weights in {held:,} bytes" if held else ""
        raise UserError(f"{name} with {parameters:,} parameters{files_here}", expected, do)


def most_layers(settings: Any) -> int:
    """The largest number of layers in a configuration and its parts; 0 if none is said."""
    found = [0]
    for key, value in settings.items():
        if isinstance(value, dict):
            found.append(most_layers(value))
        elif str(key).endswith(("layers", "depth")) and isinstance(value, int):
            found.append(value)
    return max(found)


def described(key: str, mismatched: list[str], unexpected) -> str:
    """The first wrong weight, and what the file calls it if it has a longer name."""
    if key in mismatched:
        return f"first: {key}, of another shape"
    other = [name for name in sorted(unexpected) if name.endswith(f".{key}")]
    return f"first: {key}" + (f", which the file calls {other[0]}" if other else "")


def load_tokenizer(name: str):
    """The tokenizer of a folder or hub name. Runs no code of the folder."""
    transformers = quiet_transformers()
    return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def image_file(name: str) -> dict:
    """What the folder or hub name says of images: its preprocessor_config.json, as it is."""
    said = quiet_transformers().ImageProcessingMixin.get_image_processor_dict(name)[0]
    if not isinstance(said, dict):
        raise ValueError("preprocessor_config.json holds no JSON object")
    return said


def settings_of(said: dict, kind: str = "clip") -> dict:
    """The SETTINGS of a preprocessor_config.json; the class that it names fills the rest.

    Older files name a feature extractor, or no class at all: then `kind` decides. Raises UserError
    if transformers has no such class, or if a value is not of the class's kind.
    """
    transformers = quiet_transformers()
    named = said.get("image_processor_type") or said.get("feature_extractor_type")
    wanted = str(named or PROCESSORS.get(kind, "")).removesuffix("Fast").removesuffix("Pil")
    wanted = wanted.replace("FeatureExtractor", "ImageProcessor")
    processor = getattr(transformers, wanted, None)
    if not wanted.endswith("ImageProcessor") or processor is None:
        raise UserError(
            f"the image processor {named}, which transformers does not have",
            "a class such as CLIPImageProcessor in preprocessor_config.json",
            "choose another encoder",
        )
    # null means unsaid, too.
    given = {key: said[key] for key in SETTINGS if said.get(key) is not None}
    with reading(wanted, "image processor", "correct preprocessor_config.json"):
        made = processor(**given)
    found = {key: getattr(made, key, None) for key in SETTINGS}
    for key in ("size", "crop_size"):
        # A dict, or in newer versions an object with every kind of side, most of them None.
        size = found[key] or {}
        sides = size if isinstance(size, dict) else vars(size)
        lengths = {side: length for side, length in sides.items() if isinstance(length, int)}
        found[key] = lengths
        if any(not 0 < length <= LARGEST_SIDE for length in lengths.values()):
            raise UserError(
                f"a preprocessor_config.json with {key} {lengths}",
                f"sides of 1 to {LARGEST_SIDE} pixels",
                "correct the file",
            )
    return found
