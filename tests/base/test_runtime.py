"""A bundle runs as torch does: the schedule, looking back, and providers that are missing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from base import decoding
from base.config import SampleConfig
from base.files import UserError
from base.runtime import Runner
from caption import writer
from diffusion import Schedule
from edge import inputs
from net.samplers import Progress, paced


def test_schedule_is_the_samplers():
    for name in ("linear", "cosine", "polynomial"):
        for steps in (1, 3, 6, 32):
            table = decoding.schedule_table(SampleConfig(steps=steps, schedule=name), 9)
            masked = torch.arange(10)[:, None] > torch.arange(9)
            for step in range(steps):
                now, all_steps = torch.full((10,), step), torch.full((10,), steps)
                shown = paced(Progress(masked, masked, now, all_steps), Schedule(name))
                assert (np.arange(10) - table[:, step] == shown.numpy()).all()


@pytest.mark.parametrize(
    "settings",
    [
        SampleConfig("confidence", 2, temperature=0.0, revise=1),
        SampleConfig("threshold", 9, temperature=0.9, threshold=0.004, revise=2),
        SampleConfig("first_hitting", 2, temperature=0.0, revise=1),
        SampleConfig("left_to_right", temperature=0.0, speculate=3, revise=1),
    ],
    ids=lambda settings: settings.sampler,
)
def test_a_bundle_looks_back_as_torch_does(bundled, settings):
    """Ids, the call of each, its probability and a row's calls, whichever graph writes the
    draft."""
    trained = inputs.open_trained(bundled.checkpoint)
    images = np.load(bundled.bundle / "golden.npz")["images"]
    seen = trained.standardised(trained.features(images))

    def by_torch(settings):
        model, tokenizer = trained.model, trained.tokenizer
        return writer.write(model, tokenizer, "diffusion", seen, settings, seed=3)

    expected, drafts = by_torch(settings), by_torch(replace(settings, revise=0))
    assert [text.ids for text in drafts] != [text.ids for text in expected]
    for runner in (Runner(bundled.bundle), Runner(bundled.bundle, for_tensorrt=True)):
        found = runner.write(images, settings, seed=3)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.ids, ours.step, ours.calls) == (theirs.ids, theirs.step, theirs.calls)
            assert np.allclose(ours.probability, theirs.probability, atol=1e-4)


def test_looking_back_needs_one_number_per_token(bundled):
    images = np.load(bundled.bundle / "golden.npz")["images"]
    settings = SampleConfig("first_hitting", 2, temperature=1.0, revise=1)
    with pytest.raises(UserError, match="--revise with first_hitting"):
        Runner(bundled.bundle).write(images, settings)


def test_tensorrt_is_asked_in_its_own_words(bundled, monkeypatch):
    """ONNX Runtime's provider, against a fake of the module: no TensorRT was ever at hand."""
    build, asked = Runner(bundled.bundle).facts["build"], {}

    class Session:
        def __init__(self, path, options, providers):
            asked["providers"] = providers
            self.names = [entry if isinstance(entry, str) else entry[0] for entry in providers]

        def get_providers(self):
            return self.names[asked.get("fall_back", 0) :]

        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={"build": build})

    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    Runner(bundled.bundle, "tensorrt").session("step")
    (name, options), *rest = asked["providers"]
    assert name == "TensorrtExecutionProvider"
    assert rest == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["trt_engine_cache_enable"] and not options["trt_fp16_enable"]
    assert build in options["trt_engine_cache_path"]
    asked["fall_back"] = 2
    with pytest.raises(UserError, match="in whose place onnxruntime took CPUExecutionProvider"):
        Runner(bundled.bundle, "tensorrt").session("encoder")
