"""The networks as they run at the edge: torch modules whose only purpose is to be exported to ONNX (floor 2).

    EncoderGraph    image (B, S, S, 3) uint8 -> features (B, P, width), normalised inside, rounded as the captioner was trained
    ConditionGraph  features -> keys (B, N, H, head, P), values (B, N, H, P, head) of all N blocks, and the likeliest length
    StepGraph       tokens, lengths (, keys, values) -> logits, the likeliest token and its probability: one denoiser call
    LoopGraph       the whole denoising in one call: an ONNX Loop around StepGraph's network
    NextGraph       the autoregressive twin: one token and its key-value cache -> the next one

`join` puts encoder, condition and loop into one file, image in and tokens out.
They compute what model.py computes, arranged for the runtime: attention written out (281 nodes where the fused operator
exports 395), query, key and value as one product, gate folded into the output matrix, RMSNorm spelt as ONNX Runtime fuses it.
Ids are int32 at the boundary. parity.py holds every graph against model.py and samplers.py.
"""

import contextlib
import copy
import io
import logging
import warnings

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from base.files import UserError
from caption.writer import place_code
from model import Denoiser

OPSETS = (18, 20)  # LayerNormalization needs 17; TensorRT 10.3 reads up to 20
IR_VERSION = 10  # what the oldest onnxruntime in requirements-jetson.txt reads


class Norm(nn.Module):
    """RMSNorm as Pow, ReduceMean, Add, Sqrt, Div, Mul, which ONNX Runtime fuses into one kernel."""

    def __init__(self, norm: nn.RMSNorm):
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


def linear(*weights: Tensor) -> nn.Linear:
    """One bias-free product for matrices (out_i, in) that read the same input."""
    joined = torch.cat([weight.detach() for weight in weights])
    result = nn.Linear(joined.shape[1], joined.shape[0], bias=False)
    result.weight = nn.Parameter(joined.clone())
    return result


class EdgeBlock(nn.Module):
    """One block of model.py: self-attention, cross-attention if there is a condition, MLP."""

    def __init__(self, block):
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.heads, self.crossed = attention.heads, block.cross is not None
        self.attention_norm, self.query_norm, self.key_norm = (
            Norm(block.attention_norm),
            Norm(attention.query_norm),
            Norm(attention.key_norm),
        )
        self.qkv, self.out = (
            linear(attention.query.weight, attention.key.weight, attention.value.weight),
            linear(attention.out.weight),
        )
        self.query_norm.weight.data *= (
            attention.out.weight.shape[0] // self.heads
        ) ** -0.5  # the scale of the scores
        if self.crossed:
            self.cross_norm, self.cross_query_norm = (
                Norm(block.cross_norm),
                Norm(block.cross.query_norm),
            )
            self.cross_query, self.cross_out = (
                linear(block.cross.query.weight),
                linear(block.cross.gate.detach() * block.cross.out.weight),
            )
        self.mlp_norm, self.gated = Norm(block.mlp_norm), mlp.gate is not None
        self.up = linear(mlp.gate.weight, mlp.up.weight) if self.gated else linear(mlp.up.weight)
        self.down = linear(mlp.down.weight)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D) -> normalised queries and keys, and values, each (B, H, L, head), not yet turned."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1))
            for part in self.qkv(self.attention_norm(x)).chunk(3, -1)
        )
        return (
            self.query_norm(q).transpose(1, 2),
            self.key_norm(k).transpose(1, 2),
            v.transpose(1, 2),
        )

    def mix(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
    ) -> Tensor:
        """The rest of the block. bias: added to the scores; keys (B, H, head, P), values (B, H, P, head) of the condition."""
        y = (q @ k.transpose(-1, -2) + bias).softmax(-1) @ v  # (B, H, L, head)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        if keys is not None:
            q = self.cross_query_norm(
                self.cross_query(self.cross_norm(x)).unflatten(-1, (self.heads, -1))
            ).transpose(1, 2)
            x = x + self.cross_out(((q @ keys).softmax(-1) @ values).transpose(1, 2).flatten(2))
        hidden = self.up(self.mlp_norm(x))
        if self.gated:
            gate, hidden = hidden.chunk(2, -1)
            return x + self.down(F.silu(gate) * hidden)
        return x + self.down(F.gelu(hidden))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x (B, H, L, head); cos, sin (L, head)."""
    one, two = x.chunk(2, -1)
    return x * cos + torch.cat([two, one], -1) * sin


class Network(nn.Module):
    """Tokens -> logits (B, L, V') float32: what `Denoiser.forward` computes without selection."""

    def __init__(self, model: Denoiser):
        super().__init__()
        self.embedding = nn.Parameter(model.embedding.weight.detach().clone())
        self.blocks = nn.ModuleList(EdgeBlock(block) for block in model.blocks)
        self.norm, self.head = (
            Norm(model.norm),
            linear(model.embedding.weight[: model.config.output_size]),
        )
        self.time = model.time
        self.register_buffer("cos", model.rotary.cos.clone())
        self.register_buffer("sin", model.rotary.sin.clone())

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        share: Tensor | None = None,
    ) -> Tensor:
        """tokens (B, L) int32; lengths (B,) int32: behind them is padding that nobody attends to; share (B,) with time conditioning."""
        L = tokens.shape[1]
        x = F.embedding(tokens, self.embedding)  # (B, L, D)
        if self.time is not None:
            x = x + self.time(share)
        position = torch.arange(L, dtype=torch.int32)
        bias = torch.where(position < lengths[:, None], 0.0, -1e4)[
            :, None, None
        ]  # (B, 1, 1, L); -1e4 is finite in float16 too
        cos, sin = self.cos[:L], self.sin[:L]
        for layer, block in enumerate(self.blocks):
            q, k, v = block.heads_of(x)
            x = block.mix(
                x,
                turned(q, cos, sin),
                turned(k, cos, sin),
                v,
                bias,
                None if keys is None else keys[:, layer],
                None if values is None else values[:, layer],
            )
        return self.head(self.norm(x))


class EncoderGraph(nn.Module):
    """Pictures of the right size as bytes -> features, with the rounding to float16 that the captioner was trained with."""

    def __init__(self, encoder):
        super().__init__()
        self.body = copy.deepcopy(encoder.model)  # it may be halved
        self.register_buffer("scale", (1 / (255 * encoder.std)).clone())
        self.register_buffer("shift", (-encoder.mean / encoder.std).clone())

    def forward(self, image: Tensor) -> Tensor:
        x = image.float().permute(0, 3, 1, 2) * self.scale + self.shift
        return self.body(pixel_values=x).last_hidden_state.half().float()


class ConditionGraph(nn.Module):
    """Features -> all that the blocks need to know of a picture, once per picture."""

    def __init__(self, model: Denoiser, statistics: dict, patches: int):
        super().__init__()
        self.layers, self.heads, width = (
            model.config.layers,
            model.config.heads,
            model.config.condition_width,
        )
        self.register_buffer("scale", 1 / torch.tensor(statistics["feature_std"]))
        code = statistics.get("place_scale", 1.0) * place_code(patches, width)
        self.register_buffer("shift", code - torch.tensor(statistics["feature_mean"]) * self.scale)
        self.key = linear(*(block.cross.key.weight for block in model.blocks))
        self.value = linear(*(block.cross.value.weight for block in model.blocks))
        norms, head = (
            [block.cross.key_norm for block in model.blocks],
            model.config.d_model // self.heads,
        )
        self.norm = Norm(norms[0])
        self.norm.weight = nn.Parameter(
            torch.stack([norm.weight.detach() for norm in norms])[:, None] * head**-0.5
        )  # (N, 1, head)
        self.length_head = model.length_head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = features * self.scale + self.shift  # (B, P, width)
        split = lambda y: y.unflatten(-1, (self.layers, self.heads, -1))  # (B, P, N, H, head)
        keys = self.norm(split(self.key(seen))).permute(0, 2, 3, 4, 1)
        values = split(self.value(seen)).permute(0, 2, 3, 1, 4)
        length = self.length_head(seen).argmax(-1).clamp(min=3)
        return keys, values, length.int()


class StepGraph(nn.Module):
    """One denoiser call, for runtimes that drive the loop themselves (TensorRT). Every operator is one of TensorRT 10.3."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        share: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.network(tokens, lengths, keys, values, share)
        confidence = logits.log_softmax(-1).amax(-1).exp()
        return logits, logits.argmax(-1).int(), confidence


class LoopGraph(nn.Module):
    """samplers.sample in one graph, for the orders of runtime.ORDERS, at any number of steps.

    schedule (L + 1, N) int32: row n says how many of n blanks are still masked after each of the N steps.
    order (1,) int32: a place in runtime.ORDERS. threshold (1,): reveal all that are at least this sure; above 1 the schedule alone decides.
    In the order entropy_bound it is that bound in nats.
    temperature (1,): 0 takes the likeliest token. noise (B, M) float64: the row's stream of uniform numbers, in the order in
    which samplers.sample takes them from its generator. Returns tokens, the call that revealed each (0: given), its
    probability (1: given), and the number of calls (1,).
    """

    def __init__(self, network: Network, mask_id: int):
        super().__init__()
        self.network, self.mask_id = network, mask_id

    def forward(
        self,
        tokens,
        lengths,
        schedule,
        order,
        threshold,
        temperature,
        noise,
        keys=None,
        values=None,
    ):
        tokens = tokens + 0
        total = (tokens == self.mask_id).sum(1).int()
        state = (
            torch.zeros(1, dtype=torch.int32),
            tokens,
            torch.zeros_like(tokens),
            torch.ones_like(tokens).float(),
            torch.zeros_like(total),
            torch.zeros_like(total),
            torch.zeros(1, dtype=torch.int32),
        )
        fixed = (total, lengths, schedule, order, threshold, temperature, noise) + (
            () if keys is None else (keys, values)
        )
        count = len(state)

        def going(*carried):
            return (carried[1] == self.mask_id).any()

        def body(*carried):
            return (
                *self.advance(carried[:count], *carried[count:]),
                *(one.clone() for one in carried[count:]),
            )

        out = while_loop(going, body, (*state, *fixed))
        return out[1], out[2], out[3], out[6]

    def advance(
        self,
        state,
        total,
        lengths,
        schedule,
        order,
        threshold,
        temperature,
        noise,
        keys=None,
        values=None,
    ):
        """One round. state: the schedule's place, tokens, step, probability, and of each row: its calls, its place in the noise."""
        at, tokens, step, probability, used, cursor, calls = state
        masked = tokens == self.mask_id
        now = masked.sum(1).int()  # (B,)
        left = schedule.index_select(0, total)  # (B, N) still masked after each step
        place = torch.arange(schedule.shape[1], dtype=torch.int32)
        by_entropy = order == 3
        own = by_entropy | (threshold <= 1)
        due = (left < now[:, None]).any(0) & (
            place >= at
        )  # steps at which some row reveals something: the others cost no call
        next_due = torch.where(due, place, schedule.shape[1] - 1).amin(0, keepdim=True)
        skipped = torch.where(own, 0, next_due - at)
        at = at + skipped
        paced = (now - left.index_select(1, at)[:, 0]).clamp(min=0)
        least = torch.where(own, paced.clamp(min=1), paced)

        share = now / total.clamp(min=1)
        logits = self.network(tokens, lengths, keys, values, share)  # (B, L, V')
        log_prob = logits.log_softmax(-1)
        confidence = log_prob.amax(-1).exp()
        entropy = -(log_prob * log_prob.exp()).sum(-1).double()
        random = order == 2
        cursor = cursor + torch.where(random, now * skipped, 0)  # skipped steps drew an order too
        from_noise = lambda where: noise.gather(
            1, (cursor[:, None] + where.int().cumsum(1) - 1).clamp(0, noise.shape[1] - 1)
        )
        position = torch.arange(tokens.shape[1])
        score = torch.where(
            by_entropy, -entropy, torch.where(order == 1, -position.double(), confidence.double())
        )
        score = torch.where(random, from_noise(masked), score)
        score = torch.where(masked, score, -torch.inf)
        cursor = cursor + torch.where(random, now, 0)
        mine, other = score[:, :, None], score[:, None]
        before = (other > mine) | (
            (other == mine) & (position < position[:, None])
        )  # in a stable descending sort
        rank = before.sum(2)
        uncertain = torch.where(before & masked[:, None], entropy[:, None], 0.0).sum(
            2
        )  # nats of all that is surer
        accepted = (
            (
                masked
                & (
                    (by_entropy & (uncertain <= threshold))
                    | (~by_entropy & (confidence >= threshold))
                )
            )
            .sum(1)
            .int()
        )
        reveal = masked & (rank < torch.maximum(least, accepted)[:, None])

        sure = temperature == 0
        mass = (logits.double() / torch.where(sure, 1.0, temperature)).softmax(-1).cumsum(-1)
        point = from_noise(reveal)[:, :, None] * mass[:, :, -1:]
        drawn = (mass <= point).sum(-1).clamp(max=mass.shape[2] - 1)
        token = torch.where(sure, logits.argmax(-1), drawn)
        likely = log_prob.gather(2, token[:, :, None])[:, :, 0].exp()
        active = reveal.any(1)
        used = used + active.int()
        return (
            at + 1,
            torch.where(reveal, token.int(), tokens),
            torch.where(reveal, used[:, None], step),
            torch.where(reveal, likely, probability),
            used,
            cursor + reveal.sum(1).int(),
            calls + 1,
        )


class NextGraph(nn.Module):
    """The twin's next token. past_keys, past_values (B, N, H, max_length, head): positions up to `position` (1,) int32 are filled."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(
        self,
        token: Tensor,
        position: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """token (B, 1) int32, the one at `position` -> logits (B, V'), and the cache with this position filled."""
        net = self.network
        place = torch.arange(past_keys.shape[3], dtype=torch.int32)
        here = (place == position)[:, None]  # (max_length, 1)
        bias = torch.where(place <= position, 0.0, -1e4)
        cos, sin = net.cos.index_select(0, position), net.sin.index_select(0, position)
        x, all_keys, all_values = F.embedding(token, net.embedding), [], []
        for layer, block in enumerate(net.blocks):
            q, k, v = block.heads_of(x)
            k = torch.where(here, turned(k, cos, sin), past_keys[:, layer])
            v = torch.where(here, v, past_values[:, layer])
            x = block.mix(
                x,
                turned(q, cos, sin),
                k,
                v,
                bias,
                None if keys is None else keys[:, layer],
                None if values is None else values[:, layer],
            )
            all_keys.append(k)
            all_values.append(v)
        return net.head(net.norm(x))[:, 0], torch.stack(all_keys, 1), torch.stack(all_values, 1)


def axes(**sizes) -> dict:
    return {name: torch.export.Dim(name, min=low, max=high) for name, (low, high) in sizes.items()}


def signature(
    name: str, model: Denoiser, image_size: int = 0, patches: int = 0
) -> tuple[dict, dict, list[str]]:
    """Example inputs of a graph, by name; which of their axes are free; the names of its outputs."""
    size, dim = (
        model.config,
        axes(
            batch=(1, 1024),
            length=(2, model.config.max_length),
            steps=(1, 4096),
            numbers=(1, 1 << 20),
        ),
    )
    L, N, H, head = min(9, size.max_length), size.layers, size.heads, size.d_model // size.heads
    free, row = {"batch": 0, "length": 1}, {"batch": 0}
    whole = lambda *shape: torch.zeros(shape, dtype=torch.int32)
    condition = (
        {
            "keys": (torch.zeros(2, N, H, head, patches), row),
            "values": (torch.zeros(2, N, H, patches, head), row),
        }
        if patches
        else {}
    )
    share = {"share": (torch.zeros(2), row)} if model.time is not None else {}
    controls = {
        "schedule": (whole(size.max_length + 1, 5), {"steps": 1}),
        "order": (whole(1), {}),
        "threshold": (torch.zeros(1), {}),
        "temperature": (torch.zeros(1), {}),
        "noise": (torch.zeros(2, 40, dtype=torch.float64), {"batch": 0, "numbers": 1}),
    }
    rows = {"tokens": (whole(2, L), free), "lengths": (whole(2) + L, row)}
    image = {"image": (torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8), row)}
    past = lambda: torch.zeros(
        2, N, H, size.max_length, head
    )  # two tensors: torch.export takes one object for one input
    inputs, outputs = {
        "encoder": (image, ["features"]),
        "condition": (
            {"features": (torch.zeros(2, patches, size.condition_width), row)},
            ["keys", "values", "lengths"],
        ),
        "step": ({**rows, **condition, **share}, ["logits", "likeliest", "confidence"]),
        "loop": ({**rows, **controls, **condition}, ["filled", "step", "probability", "calls"]),
        "next": (
            {
                "token": (whole(2, 1), row),
                "position": (whole(1), {}),
                "past_keys": (past(), row),
                "past_values": (past(), row),
                **condition,
            },
            ["logits", "new_keys", "new_values"],
        ),
    }[name]
    return (
        {key: example for key, (example, _) in inputs.items()},
        {
            key: {axis: dim[label] for label, axis in free.items()}
            for key, (_, free) in inputs.items()
        },
        outputs,
    )


def write(proto: onnx.ModelProto, name: str, path, facts: dict) -> None:
    """Check a graph and write it with `facts` in its metadata."""
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    strip(proto)
    for key, value in {**facts, "graph": name}.items():
        proto.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def name_axes(proto: onnx.ModelProto, free: dict) -> None:
    """Call the free axes by their names in place of torch's symbols. Raises UserError if one is fixed: torch specialises silently."""
    names = {}
    for one in proto.graph.input:
        for axis, dim in free[one.name].items():
            place = one.type.tensor_type.shape.dim[axis]
            if not place.dim_param:
                raise UserError(
                    f"{one.name} with {place.dim_value} fixed at axis {axis}",
                    "a free axis",
                    "export with another torch",
                )
            names[place.dim_param] = dim.__name__
    for one in [*proto.graph.input, *proto.graph.output]:
        for place in one.type.tensor_type.shape.dim:
            if place.dim_param:
                place.dim_param = names.get(place.dim_param, place.dim_param)


def strip(proto) -> None:
    """Remove what the exporter noted on every node: stack traces with this machine's paths, a third of a small loop's file."""
    del proto.metadata_props[:], proto.graph.value_info[:]
    pending = [proto.graph, *proto.functions]
    while pending:
        graph = pending.pop()
        del graph.metadata_props[:]
        for item in [
            *graph.node,
            *getattr(graph, "input", []),
            *getattr(graph, "output", []),
            *getattr(graph, "initializer", []),
        ]:
            item.ClearField("doc_string")
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
        pending += [
            attribute.g
            for node in graph.node
            for attribute in node.attribute
            if attribute.HasField("g")
        ]


def export(
    graph: nn.Module,
    name: str,
    path,
    model: Denoiser,
    opset: int,
    facts: dict,
    image_size: int = 0,
    patches: int = 0,
) -> None:
    """Write one graph as one ONNX file with `facts` in its metadata. Raises UserError if an axis that must be free is not."""
    examples, free, outputs = signature(name, model, image_size, patches)
    logging.disable(
        logging.ERROR
    )  # thousands of lines of torch's tracing, wherever someone listens
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph.eval(), (), examples, dynamic_shapes=free)
        exported = torch.onnx.export(
            program,
            kwargs=examples,
            dynamo=True,
            opset_version=opset,
            input_names=list(examples),
            output_names=outputs,
            verbose=False,
        )
    logging.disable(logging.NOTSET)
    proto = exported.model_proto  # made anew at every look
    name_axes(proto, free)
    write(proto, name, path, facts)


def join(folder, special: dict, length: int, opset: int, facts: dict) -> None:
    """captioner.onnx from encoder.onnx, condition.onnx and loop.onnx: image in, caption out. Rows have the model's longest length.

    Between condition and loop stand seven nodes that lay out [BOS], blanks, [EOS], [PAD] for the lengths that condition says.
    """
    from onnx import TensorProto, compose, helper, numpy_helper

    node, value = (
        helper.make_node,
        lambda name, content, kind: numpy_helper.from_array(np.array(content, kind), name),
    )
    blanks = helper.make_graph(
        [
            node("Unsqueeze", ["n", "axis"], ["column"]),
            node("Less", ["place", "column"], ["inside"]),
            node("Sub", ["column", "one"], ["end"]),
            node("Equal", ["place", "end"], ["last"]),
            node("Where", ["inside", "mask", "pad"], ["unended"]),
            node("Where", ["last", "eos", "unended"], ["unbegun"]),
            node("Where", ["first", "bos", "unbegun"], ["tokens"]),
        ],
        "blanks",
        [helper.make_tensor_value_info("n", TensorProto.INT32, ["batch"])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", length])],
        [
            value("axis", [1], np.int64),
            value("place", [range(length)], np.int32),
            value("one", 1, np.int32),
            value("first", [np.arange(length) == 0], bool),
            *(value(name, special[name], np.int32) for name in ("mask", "pad", "bos", "eos")),
        ],
    )
    parts = {name: onnx.load(folder / f"{name}.onnx") for name in ("encoder", "condition", "loop")}
    parts["blanks"] = helper.make_model(
        blanks, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )
    for part in parts.values():
        del part.metadata_props[:]
    # The loop keeps its names: add_prefix does not reach what an inner graph takes from the outer one.
    first, middle, layout = (
        compose.add_prefix(parts[name], f"{name}/") for name in ("encoder", "condition", "blanks")
    )
    whole = compose.merge_models(first, middle, [("encoder/features", "condition/features")])
    whole = compose.merge_models(
        whole,
        layout,
        [("condition/lengths", "blanks/n")],
        outputs=["condition/keys", "condition/values", "condition/lengths", "blanks/tokens"],
    )
    whole = compose.merge_models(
        whole,
        parts["loop"],
        [
            ("condition/keys", "keys"),
            ("condition/values", "values"),
            ("condition/lengths", "lengths"),
            ("blanks/tokens", "tokens"),
        ],
        outputs=["condition/lengths", "filled", "step", "probability", "calls"],
    )
    for old, new in (("encoder/image", "image"), ("condition/lengths", "lengths")):
        for one in [*whole.graph.input, *whole.graph.output]:
            one.name = new if one.name == old else one.name
        for each in whole.graph.node:
            each.input[:], each.output[:] = (
                [new if name == old else name for name in names]
                for names in (each.input, each.output)
            )
    del whole.opset_import[:]  # merging lists it once a part
    whole.opset_import.append(helper.make_opsetid("", opset))
    write(whole, "captioner", folder / "captioner.onnx", facts)
