"""A bundle: a folder with a trained model as ONNX graphs, and everything that a device needs to run
it.

    bundle.json      what is inside: format, kind, precision, sampling, preprocessing, special ids,
                     tolerances, the parity report, versions, the SHA-256 of every other file, and
                     its own
    *.onnx           the graphs; the same facts are in their metadata
    tokenizer.json   the tokenizer
    golden.npz       inputs, with the outputs that the trained model gave for them
    adapters/*.npz   the numbers of adapters to choose from, if there are any
    infer_onnx.py, drive_robot.py, requirements-jetson.txt, base/
                     the code that runs it, without torch

No file of a bundle is used before its checksum is right: a graph with a zeroed block of weights
loads, runs, and writes wrong texts.
"""

import contextlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from base import files
from base.files import UserError

FORMAT = 1
ADAPTED = 2  # the format of a bundle with adapters: older readers lack the inputs of its graphs
# Copied from the project, `base` whole.
CODE = ("infer_onnx.py", "drive_robot.py", "requirements-jetson.txt", "base")
LARGEST = 1 << 30  # bytes of an npz file once unpacked
AGAIN = "copy the bundle again, or export it again with export_onnx.py"
ASIDE = ".old"  # the end of an older bundle's name while a new bundle takes its place
LEFT_BEHIND = {"__pycache__", "engines"}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
ELSEWHERE = {
    "cuda": "install onnxruntime-gpu for this machine (docs/edge.md), or use --provider cpu",
    "tensorrt": "install an onnxruntime-gpu with TensorRT (docs/edge.md), or use --provider cpu",
    "cpu": "install onnxruntime again",
}
SHAPE = {
    "kind": str,
    "objective": str,
    "build": str,
    "model": dict,
    "sampling": dict,
    "graphs": dict,
    "files": dict,
}  # what running it needs


def contents(folder: Path) -> list[Path]:
    """The files that have a checksum: all but bundle.json and the leftovers of a run."""
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path
        for path in inside
        if path.name != "bundle.json" and not LEFT_BEHIND & set(path.relative_to(folder).parts)
    ]


def copy_code(root: Path, folder: Path) -> None:
    """Copy what runs a bundle from the project in `root` into the bundle in `folder`."""
    for name in CODE:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(root / name, folder / name)


def seal(folder, facts: dict) -> None:
    """Write bundle.json: these facts, the size and SHA-256 of every file, and its own checksum.

    It is the last file of an export: a folder without it is no bundle.
    """
    folder = Path(folder)
    # Slashes, also on Windows: every system reads the bundle.
    names = [path.relative_to(folder).as_posix() for path in contents(folder)]
    files.write_sealed(
        folder / "bundle.json", {"format": FORMAT, **facts, "files": files.listed(folder, names)}
    )


@contextlib.contextmanager
def being_made(out: Path) -> Iterator[Path]:
    """A folder for the bundle: it becomes `out` if nothing fails, else it is removed.

    Raises UserError if `out` exists and is no bundle.
    """
    settle(out.absolute())  # an export that was killed may have left `out` aside
    replaceable = (out / "bundle.json").exists() or (out.is_dir() and not any(out.iterdir()))
    if out.exists() and not replaceable:
        raise UserError(
            f"{out}, which is no bundle",
            "a bundle to replace, or a new name",
            "choose another --out",
        )
    files.writable_folder(out.parent)
    # Beside `out`, so that a rename puts it in place.
    made = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    made.mkdir()
    try:
        yield made
        publish(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def publish(made: Path, out: Path) -> None:
    """Put the finished folder `made` in the place of `out`: a bundle, an empty folder, or nothing.

    It takes two renames. `settle` repairs the folder if the process is killed between them.
    """
    aside = made.with_name(f"{made.name}{ASIDE}")
    if out.exists():
        # A rename cannot replace a folder that holds files.
        os.replace(out, aside)
    try:
        os.replace(made, out)
    except OSError:
        settle(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def settle(out: Path) -> None:
    """Put the older bundle back where it was, if an export was killed between its two renames."""
    for aside in out.parent.glob(f".{out.name}.*{ASIDE}"):
        if not out.exists() and (aside / "bundle.json").exists():
            with contextlib.suppress(OSError):  # a process that may write here does it later
                os.replace(aside, out)


def read(folder) -> dict:
    """bundle.json. Raises UserError if it is damaged, of another format or of another shape."""
    settle(Path(folder).absolute())
    path = files.existing(
        Path(folder) / "bundle.json",
        "a bundle made by export_onnx.py",
        "name its folder with --bundle",
    )
    facts = files.read_sealed(path, "a bundle's description", AGAIN)
    if facts.get("format") not in (FORMAT, ADAPTED):
        raise UserError(
            f"{path} of format {facts.get('format')!r}",
            f"format {FORMAT}, or {ADAPTED} with adapters",
            "use the version that wrote it (0.1.0 and 0.2.0 write format 1), or export again",
        )
    # `read_sealed` takes a file without a checksum as it is. Cutting the entry out must not help.
    if b'"checksum"' not in path.read_bytes():
        raise UserError(
            f"{path} without a checksum, which was changed", "the file as it was exported", AGAIN
        )
    wrong = wrong_entries(facts)
    if wrong:
        raise UserError(
            f"{path} of another shape ({', '.join(wrong[:3])})", "a bundle's description", AGAIN
        )
    return facts


def wrong_entries(facts: dict) -> list[str]:
    """The entries of bundle.json that are not of the shape that running it needs."""
    wrong = [name for name, kind in SHAPE.items() if not isinstance(facts.get(name), kind)]
    if wrong:
        return wrong
    wrong = [f"files: {name}" for name in files.unlisted(facts["files"])]
    if wrong:
        return wrong
    if facts["format"] == ADAPTED:
        wrong = wrong_adapters(facts)
    # A graph is opened only if its checksum was compared, so it must be in the list of files.
    for graphs in facts["graphs"].values():
        for name in graphs.values() if isinstance(graphs, dict) else [graphs]:
            if not isinstance(name, str) or name not in facts["files"]:
                wrong.append(f"graphs: {name}")
    return wrong


def wrong_adapters(facts: dict) -> list[str]:
    """The adapters of bundle.json whose file is not in its list of files."""
    adapters = facts.get("adapters")
    if not isinstance(adapters, dict) or not adapters:
        return ["adapters"]
    wrong = []
    for name, about in adapters.items():
        file = about.get("file") if isinstance(about, dict) else None
        if not isinstance(file, str) or file not in facts["files"]:
            wrong.append(f"adapters: {name}")
    return wrong


def check(folder, facts: dict) -> int:
    """Compare every file with its checksum and return the number of files.

    Raises UserError for a file that is missing or was changed.
    """
    files.check_files(folder, facts["files"], AGAIN)
    return len(facts["files"])


def golden(folder) -> dict[str, np.ndarray]:
    """The arrays of golden.npz, by name. Raises UserError as `arrays` does."""
    return arrays(Path(folder) / "golden.npz", "the bundle's golden outputs")


def arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name.

    Raises UserError if the file is missing, damaged, or unpacks to more than 1 GiB.
    """
    path = files.existing(path, what, AGAIN)
    try:
        with zipfile.ZipFile(path) as archive:
            # A small archive may unpack to more bytes than there is memory.
            size = sum(member.file_size for member in archive.infolist())
            if size > LARGEST:
                raise UserError(
                    f"{path}, which unpacks to {size:,} bytes", f"at most {LARGEST:,}", AGAIN
                )
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (UserError, PermissionError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise UserError(
            f"{path}, which is damaged", "the file as it was exported", AGAIN
        ) from error


def check_provider(provider: str) -> None:
    """Raise UserError unless this onnxruntime has the provider."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    known = [name for name, long_name in PROVIDERS.items() if long_name in available]
    if provider not in known:
        raise UserError(
            f"--provider {provider}, which this onnxruntime lacks",
            " or ".join(known),
            ELSEWHERE.get(provider, "choose one of these"),
        )


def provider_list(provider: str, cache: Path | None) -> list:
    """The providers of a session, the wanted one first. cache: the folder of TensorRT's engines."""
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    if provider == "cuda":
        return [PROVIDERS["cuda"], PROVIDERS["cpu"]]  # for operators that CUDA lacks
    if cache is None:
        raise ValueError("TensorRT needs a folder for its engines")
    cache.mkdir(parents=True, exist_ok=True)
    options = {
        # Without a cache TensorRT builds its engines again at every start.
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache),
        "trt_fp16_enable": False,  # the precision is in the graph
    }
    return [(PROVIDERS["tensorrt"], options), PROVIDERS["cuda"], PROVIDERS["cpu"]]


def open_graph(
    path,
    provider: str = "cpu",
    threads: int = 0,
    cache: Path | None = None,
    build: str | None = None,
    low_memory: bool = False,
):
    """An ONNX Runtime session of one graph.

    build: the bundle that the graph must say it belongs to. low_memory: weights are kept once, not
    also in the layout that products read faster (docs/log/edge.md has the figures). Raises
    UserError if the provider is missing or does not take the graph, or if the graph cannot be read.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    check_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    if low_memory:
        # The arena keeps freed memory for the next call.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    providers = provider_list(provider, cache)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}, which onnxruntime {onnxruntime.__version__} does not run ({lines[0][:200]})",
            "a graph that it knows",
            "install the version in requirements-jetson.txt, or export again",
        ) from error
    check_session(session, path, provider, build)
    return session


def check_session(session, path, provider: str, build: str | None) -> None:
    """Raise UserError if the session runs elsewhere, or the graph is another bundle's.

    onnxruntime falls back to the CPU without a word: its users meet this trap most often.
    """
    actual = session.get_providers()[0]
    if actual != PROVIDERS[provider]:
        raise UserError(
            f"--provider {provider}, in whose place onnxruntime took {actual}",
            provider,
            ELSEWHERE[provider],
        )
    graph_build = session.get_modelmeta().custom_metadata_map.get("build")
    if build is not None and graph_build != build:
        raise UserError(
            f"{path} of another bundle ({graph_build})",
            f"a graph of the bundle {build}",
            AGAIN,
        )
