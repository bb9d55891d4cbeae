"""The networks of a policy as they run at the edge: net/grounder.py and net/actor.py for ONNX.

Their blocks, norms and products are those of edge/networks.py.

Shapes: B rows, W words, D width, R roles, J attributes, N things or cells, K bins, T time steps,
A numbers per action, C tokens of condition, F observations.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge.networks import HIDDEN, EdgeBlock, Network, Norm, turned
from net import eyes
from net.actor import EARLIER, FINE, Actor, centres
from net.grounder import ROLES, Grounder


class WordsNetwork(nn.Module):
    """An order: words (B, W) with lengths (B,) -> queries (B, R, J, D), order (B, O)."""

    def __init__(self, grounder: Grounder):
        super().__init__()
        words = grounder.words
        self.reader = Network(words.reader)
        self.readers = nn.Parameter(words.queries.detach().clone())
        self.alone = Norm(words.alone)
        self.named = len(ROLES) * grounder.config.attributes
        blind = grounder.config.sees == "nothing"
        self.names = None if blind else grounder.names

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """The queries and the order; of a policy that sees nothing the order alone."""
        context = self.reader.trunk(words, lengths)  # (B, W, D)
        score = self.readers @ context.transpose(1, 2) / math.sqrt(context.shape[-1])
        position = torch.arange(words.shape[1], dtype=torch.int32)
        bias = torch.where(position < lengths[:, None], 0.0, HIDDEN)[:, None]  # (B, 1, W)
        attention = (score + bias).softmax(-1)
        alone = self.alone(F.embedding(words, self.reader.embedding))
        read = attention @ alone  # (B, readers, D)
        order = read[:, self.named :].flatten(1)
        if self.names is None:
            return (order,)
        pairs = read[:, : self.named].unflatten(1, (len(ROLES), -1))
        queries = [name(pairs[:, :, j]) for j, name in enumerate(self.names)]
        return torch.stack(queries, 2), order


class GrounderNetwork(nn.Module):
    """Queries, an order and what is seen -> places (B, 2, 3) metres, log-probabilities (B, R, N).

    side: pixels of the images.
    """

    def __init__(self, grounder: Grounder, side: int):
        super().__init__()
        self.unit = grounder.config.unit
        self.eyes, self.locate, self.put = grounder.eyes, grounder.locate, grounder.put
        if isinstance(self.eyes, eyes.CameraEyes):
            self.norm = Norm(self.eyes.norm)
            cells = -(-side // eyes.SHRINK)  # two convolutions of stride 2 round up
            where = eyes.cell_places(grounder.config.cameras, cells, cells, None)
            self.register_buffer("cells", where.clone())
            self.apart = eyes.cell_width(cells)

    def forward(self, queries: Tensor, order: Tensor, seen: dict) -> tuple[Tensor, Tensor]:
        """seen: images (B, K, side, side, 3) uint8; or kinds (B, N, C), things (B, N, 3), real."""
        if self.locate is None:
            keys = self.eyes.keys(seen["kinds"]).unflatten(-1, (self.eyes.attributes, -1))
            scores = self.scores(queries, keys)
            scores = torch.where(seen["real"][:, None], scores, -torch.inf)
            share = eyes.around_best(scores, seen["things"], 0.0).softmax(-1)
            found = share @ seen["things"]
        else:
            cells = self.look(seen["images"])
            keys = self.eyes.keys(cells).unflatten(-1, (self.eyes.attributes, -1))
            scores = self.scores(queries, keys)
            share = eyes.around_best(scores, self.cells, self.apart).softmax(-1)
            found = torch.cat([share @ self.cells, share @ cells], -1)
            found = self.locate(found) * self.unit
        a, b, c = self.put(order).unflatten(-1, (3, 3)).unbind(1)
        put = a * found[:, 0] + b * found[:, 1] + c * self.unit
        return torch.stack([found[:, 0], put], 1), scores.log_softmax(-1)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries (B, R, J, D), keys (B, N, J, D) -> (B, R, N)."""
        return queries.flatten(2) @ keys.flatten(2).transpose(1, 2)

    def look(self, images: Tensor) -> Tensor:
        """Images (B, K, side, side, 3) uint8 -> cells (B, N, C)."""
        cameras = images.shape[1]
        x = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = self.eyes.layers(x).flatten(2).transpose(1, 2)  # (B·K, cells, C)
        x = x.unflatten(0, (-1, cameras)) + self.eyes.camera.weight[:, None]
        return self.norm(x).flatten(1, 2)


class Told(nn.Module):
    """What an actor is told, as tokens (B, C, D)."""

    def __init__(self, actor: Actor):
        super().__init__()
        self.unit, self.cartesian = actor.config.unit, actor.config.cartesian
        self.hand = actor.config.hand
        self.take, self.put = actor.take, actor.put
        self.state, self.order = actor.state, actor.order
        self.kind = nn.Parameter(actor.kind.detach().clone())
        self.reach = nn.Parameter(actor.reach.detach().clone())
        self.earlier = actor.config.frames - 1
        if actor.ago is not None:
            self.ago = nn.Parameter(actor.ago.detach().clone())

    def forward(
        self,
        moved: Tensor,
        places: Tensor,
        state: Tensor,
        order: Tensor,
        past_places: Tensor | None = None,
        past_states: Tensor | None = None,
    ) -> Tensor:
        """As `Actor.conditions`. moved (B, A): the sum of the committed actions, 0 for none."""
        newest = self.observation(places, state, moved)
        parts = [torch.cat([newest, self.order(order)[:, None]], 1) + self.kind]
        for frame in range(self.earlier):
            seen = self.observation(past_places[:, frame], past_states[:, frame], None)
            parts.append(seen + self.kind[:EARLIER] + self.ago[frame])
        return torch.cat(parts, 1)

    def observation(self, places: Tensor, state: Tensor, moved: Tensor | None) -> Tensor:
        seen = places / self.unit
        if self.cartesian:
            first, last = self.hand, self.hand + 3
            hand = place = state[:, first:last]
            if moved is not None:
                hand = hand + self.reach * moved[:, :3]
            way = places - hand[:, None]
            seen = torch.cat([seen, way / self.unit, torch.tanh(way / FINE)], -1)
            state = torch.cat([state[:, :first], place / self.unit, state[:, last:]], 1)
        return torch.stack([self.take(seen[:, 0]), self.put(seen[:, 1]), self.state(state)], 1)


class ActorNetwork(nn.Module):
    """One call of a head that writes tokens: logits (B, T, A, K); of l1: numbers (B, T, A)."""

    time = None  # as `edge.networks.Network`, which may know the time

    def __init__(self, actor: Actor):
        super().__init__()
        config = actor.config
        self.config, self.told_tokens = config, actor.told_tokens
        self.causal = config.head == "ar"
        self.told = Told(actor)
        self.blocks = nn.ModuleList(EdgeBlock(block) for block in actor.blocks)
        self.norm = Norm(actor.norm)
        self.head = nn.Linear(actor.out.in_features, actor.out.out_features)
        self.head.load_state_dict(actor.out.state_dict())
        if config.head == "l1":
            self.enter = nn.Parameter(actor.enter.bias.detach().clone())  # of numbers that are 0
        else:
            self.numbers = nn.Parameter(actor.numbers.detach().clone())
        self.register_buffer("centres", centres(config.bins))
        self.register_buffer("cos", actor.rotary.cos.clone())
        self.register_buffer("sin", actor.rotary.sin.clone())
        ahead = torch.ones(len(self.cos), len(self.cos)).triu(1)
        self.register_buffer("ahead", HIDDEN * ahead)

    def forward(self, tokens: Tensor, *told: Tensor | None, **more: Tensor) -> Tensor:
        """tokens (B, T, A) int32, K where masked -> logits. told, more: as `Told.forward`."""
        return self.logits(self.told(*told, **more), tokens)

    def logits(self, condition: Tensor, tokens: Tensor) -> Tensor:
        A, first = self.config.actions, self.told_tokens
        if self.causal:
            # Position C - 1 + t has read t tokens, and says the next.
            tokens, first = tokens[:, :-1], first - 1
        parts = [F.embedding(tokens[..., a], self.numbers[a]) for a in range(A)]
        x = self.trunk(condition, torch.stack(parts).sum(0))[:, first:]
        return self.head(x).unflatten(-1, (A, -1))

    def l1(self, condition: Tensor) -> Tensor:
        """Numbers (B, T, A) in [-1, 1]."""
        chunk = self.enter.expand(condition.shape[0], self.config.chunk, -1)
        return self.head(self.trunk(condition, chunk)[:, self.told_tokens :]).clamp(-1, 1)

    def trunk(self, condition: Tensor, chunk: Tensor) -> Tensor:
        """condition (B, C, D), chunk (B, T', D) -> (B, C + T', D)."""
        x = torch.cat([condition, chunk], 1)
        L = x.shape[1]
        bias = self.ahead[:L, :L] if self.causal else self.ahead[:1, :1]
        cos, sin = self.cos[:L], self.sin[:L]
        for block in self.blocks:
            q, k, v = block.heads_of(x)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
            x = block.mix(x, q, k, v, bias, None, None)
        return self.norm(x)
