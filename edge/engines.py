"""TensorRT engines of a bundle's graphs: the exact commands for the device (floor 0: standard library only).

Precision is in the graphs (float16 products, or Q/DQ), so the engines are strongly typed: one command line serves TensorRT
10.3 (JetPack 6.2) to 11, whose trtexec has lost --fp16 and --int8. Batch 1, fixed shapes. An engine is good for one graph on
one device, so its name holds the build; the timing cache makes the second build quick.
"""

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
WORKSPACE_MIB = 1024  # the builder shares 8 GB with everything else


def shapes(facts: dict, name: str) -> dict[str, tuple[int, ...]]:
    """The shape of each input of a graph at batch 1."""
    size, head = facts["model"], facts["model"]["d_model"] // facts["model"]["heads"]
    patches, width = (facts.get("encoder", {}).get(key, 0) for key in ("patches", "width"))
    condition = {
        "keys": (1, size["layers"], size["heads"], head, patches),
        "values": (1, size["layers"], size["heads"], patches, head),
    }
    share = {"share": (1,)} if size["time_conditioning"] != "none" else {}
    side = facts.get("preprocess", {}).get("size", 0)
    return {
        "encoder": {"image": (1, side, side, 3)},
        "condition": {"features": (1, patches, width)},
        "step": {
            "tokens": (1, size["max_length"]),
            "lengths": (1,),
            **(condition if patches else {}),
            **share,
        },
    }[name]


def build(facts: dict, name: str) -> list[str]:
    """trtexec's words to build the engine of one graph."""
    file = facts["graphs"]["tensorrt"][name]
    at = ",".join(
        f"{key}:{'x'.join(map(str, shape))}" for key, shape in shapes(facts, name).items()
    )
    return [
        TRTEXEC,
        f"--onnx={file}",
        f"--saveEngine=engines/{name}-{facts['build']}.plan",
        "--stronglyTyped",
        *(f"--{which}Shapes={at}" for which in ("min", "opt", "max")),
        f"--memPoolSize=workspace:{WORKSPACE_MIB}",
        "--timingCacheFile=engines/timing.cache",
        "--builderOptimizationLevel=5",
        "--skipInference",
    ]


def measure(facts: dict, name: str) -> list[str]:
    """trtexec's words to time that engine without a Python around it."""
    return [
        TRTEXEC,
        f"--loadEngine=engines/{name}-{facts['build']}.plan",
        "--useCudaGraph",
        "--useSpinWait",
        "--noDataTransfers",
        "--warmUp=1000",
        "--duration=15",
        "--percentile=50,90,99",
    ]


def script(facts: dict) -> str:
    """build_engines.sh: builds, then times, each engine on the device, in the bundle's folder."""
    lines = [
        "#!/bin/sh",
        "# On the Jetson, in this folder: sh build_engines.sh. Never run on a device by its authors: docs/edge.md.",
        "set -e",
        "mkdir -p engines",
    ]
    for words in (build, measure):
        lines += [" ".join(words(facts, name)) for name in facts["graphs"]["tensorrt"]]
    return "\n".join(lines) + "\n"
