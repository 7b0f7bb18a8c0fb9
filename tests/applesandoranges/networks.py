"""Tiny networks with losses and data of the kinds that people bring, and what is true of each."""

from __future__ import annotations

import warnings
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from applesandoranges.hessian.batches import cut, num_points

BOTH = frozenset({"vmap", "graph"})
#: Uneven mini-batches of the eleven data points.
SIZES = (4, 4, 3)
NUM = sum(SIZES)


@dataclass(frozen=True)
class Case:
    """A network, a loss and data.

    Attributes:
        build: Makes the network and the loss.
        data: Makes inputs and targets of all data points.
        right: Engines whose products are right; the others must be left out.
        whole: All data are one mini-batch.
        by_differences: The dense oracle is a central difference of gradients: PyTorch's own
            second derivative is missing or wrong.
    """

    build: Callable[[], tuple[nn.Module, Any]]
    data: Callable[[], tuple[Any, Tensor]]
    right: frozenset[str] = BOTH
    whole: bool = False
    by_differences: bool = False

    def batches(self, X: Any, y: Tensor) -> list[tuple[Any, Tensor]]:
        """Cut the data into mini-batches."""
        sizes, batches, begin = [NUM] if self.whole else SIZES, [], 0
        for size in sizes:
            end = begin + size
            batches.append(tuple(cut(part, begin, end, num_points(X, y)) for part in (X, y)))
            begin = end
        return batches


def vectors() -> tuple[Tensor, Tensor]:
    """Return inputs ``[N, 4]`` and labels of three classes."""
    return torch.randn(NUM, 4, dtype=torch.float64), torch.arange(NUM) % 3


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(NUM, 2, 4, 4, dtype=torch.float64), torch.arange(NUM) % 3


def words() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 7, (NUM, 5)), torch.arange(NUM) % 3


def tagged_words() -> tuple[Tensor, Tensor]:
    """Return words, each with a label; some labels do not count."""
    X, y = torch.randint(0, 7, (NUM, 5)), torch.randint(0, 3, (NUM, 5))
    y[0, 1:], y[7] = -100, -100
    return X, y


def with_hidden_labels() -> tuple[Tensor, Tensor]:
    """Return labels of which those of a whole mini-batch, and more, do not count."""
    X, y = vectors()
    y[4:9] = -100
    return X, y


def regression() -> tuple[Tensor, Tensor]:
    X, _ = vectors()
    return X, torch.randn(NUM, 3, dtype=torch.float64)


def named() -> tuple[dict[str, Any], Tensor]:
    X, y = vectors()
    return {"left": X[:, :2], "more": [X[:, 2:], "text"]}, y


def mlp(*layers: nn.Module, last: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, last))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Partly(nn.Module):
    """Does not use one parameter; another one has no dimensions."""

    def __init__(self):
        super().__init__()
        self.body, self.unused = mlp(nn.Tanh()), nn.Parameter(torch.ones(2))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * self.body(x)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(nn.Tanh())

    def forward(self, batch):
        return self.body(torch.cat([batch["left"], batch["more"][0]], dim=1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.qkv, self.out = nn.Embedding(7, 4), nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(self.words(x)).unsqueeze(1).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


class MultiHead(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.words, self.layer, self.out = nn.Embedding(7, 4), layer, nn.Linear(4, 3)

    def forward(self, x):
        x = self.words(x)
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.out(self.layer(x, x, x, need_weights=False)[0].mean(1))
        return self.out(self.layer(x).mean(1))


class Recurrent(nn.Module):
    """Reads words; its first hidden state is made in its forward pass."""

    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.words, self.out = nn.Embedding(7, 3), nn.Linear(3, 3)
        self.body = kind(3, 3, batch_first=True)

    def forward(self, x):
        h = torch.zeros(1, len(x), 3)
        state = (h, h) if isinstance(self.body, nn.LSTM) else h
        return self.out(self.body(self.words(x), state)[0][:, -1])


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(7, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.words(x))).transpose(1, 2)


def frozen() -> nn.Module:
    net = mlp(nn.Tanh())
    net[0].weight.requires_grad_(False)
    return net


def batch_norm() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(27, 3),
    )  # fmt: skip
    net(torch.randn(8, 2, 4, 4))  # moves the running statistics
    return net


def former_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = nn.utils.weight_norm(nn.Linear(4, 4))
    net = nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3))
    net(torch.ones(1, 4))  # its weight is now the result of an operation
    return net


def cross_entropy(build: Callable[[], nn.Module], **options: Any) -> Callable[[], Any]:
    return lambda: (build(), nn.CrossEntropyLoss(**options))


WEIGHTS = torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)
GRAPH = frozenset({"graph"})

CASES = {
    "tied weights": Case(cross_entropy(Tied), vectors),
    "frozen parameters": Case(cross_entropy(frozen), vectors),
    "unused, no dimensions": Case(cross_entropy(Partly), vectors),
    "BatchNorm, dropout, in-place": Case(cross_entropy(batch_norm), images),
    "vector targets": Case(lambda: (mlp(nn.Tanh()), nn.MSELoss()), regression),
    "label smoothing": Case(cross_entropy(lambda: mlp(nn.Tanh()), label_smoothing=0.1), vectors),
    "class weights": Case(cross_entropy(lambda: mlp(nn.Tanh()), weight=WEIGHTS), vectors),
    "ignored labels": Case(cross_entropy(lambda: mlp(nn.Tanh())), with_hidden_labels),
    "labels of tokens": Case(cross_entropy(Tagger, weight=WEIGHTS), tagged_words),
    "sum": Case(cross_entropy(lambda: mlp(nn.Tanh()), reduction="sum"), vectors),
    "function": Case(lambda: (mlp(nn.Tanh()), F.cross_entropy), vectors),
    "own function": Case(
        lambda: (mlp(nn.Tanh()), lambda out, y: (out - y[:, None]).square().mean()), vectors
    ),
    "dictionary": Case(cross_entropy(Named), named),
    "mapping": Case(cross_entropy(Named), lambda: (UserDict(named()[0]), named()[1])),
    "attention": Case(cross_entropy(Attention), words),
    "MultiheadAttention": Case(
        cross_entropy(lambda: MultiHead(nn.MultiheadAttention(4, 2, batch_first=True))), words
    ),
    "TransformerEncoderLayer": Case(
        cross_entropy(
            lambda: MultiHead(
                nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", batch_first=True)
            )
        ),
        words,
        GRAPH,
    ),
    "LSTM": Case(cross_entropy(lambda: Recurrent(nn.LSTM)), words),
    "GRU": Case(cross_entropy(lambda: Recurrent(nn.GRU)), words),
    "LayerNorm": Case(cross_entropy(lambda: mlp(nn.LayerNorm(4), nn.Tanh())), vectors, GRAPH),
    "InstanceNorm": Case(
        cross_entropy(
            lambda: nn.Sequential(
                nn.Conv2d(2, 3, 2),
                nn.InstanceNorm2d(3, affine=True),
                nn.Tanh(),
                nn.Flatten(),
                nn.Linear(27, 3),
            )
        ),
        images,
        GRAPH,
    ),
    "BatchNorm of the batch": Case(
        cross_entropy(lambda: mlp(nn.BatchNorm1d(4, track_running_stats=False), nn.Tanh())),
        vectors,
        GRAPH,
        whole=True,
    ),
    "weight_norm": Case(
        cross_entropy(
            lambda: nn.Sequential(
                parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3)
            )
        ),
        vectors,
        by_differences=True,
    ),
    "former weight_norm": Case(cross_entropy(former_weight_norm), vectors, by_differences=True),
    "SiLU": Case(cross_entropy(lambda: mlp(nn.SiLU())), vectors, GRAPH),
    "Mish": Case(cross_entropy(lambda: mlp(nn.Mish())), vectors, GRAPH),
    "GroupNorm": Case(cross_entropy(lambda: mlp(nn.GroupNorm(2, 4), nn.Tanh())), vectors, GRAPH),
    "DataParallel": Case(cross_entropy(lambda: nn.DataParallel(mlp(nn.Tanh()))), vectors),
    "compiled": Case(
        cross_entropy(lambda: torch.compile(mlp(nn.Tanh()), backend="eager")), vectors
    ),
}
