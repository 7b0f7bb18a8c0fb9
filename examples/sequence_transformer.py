"""A small transformer encoder that finds the majority token of a sequence; data as dictionaries.

python 10a_gather_params_grads.py PROBLEM=examples/sequence_transformer.py RECORD_STEPS=[0,100] ...

Sequences have different lengths, and a mask says which tokens count. The data are artificial.
"""

import torch
from torch import nn
from torch.utils.data import Dataset

NUM_TOKENS, LENGTH, WIDTH = 6, 12, 16
NUM_POINTS = {"train": 1200, "test": 300}

settings = {
    "batch_size": 100,
    "num_epochs": 10,
    "Adam": {"lr_schedule": None, "opt_hpars": {"lr": 0.003}},
    "SGD": {"lr_schedule": None, "opt_hpars": {"lr": 0.1}},
}


class Sequences(Dataset):
    """Random tokens; the target is the most frequent one, the smallest of several."""

    def __init__(self, num, seed):
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(0, NUM_TOKENS, (num, LENGTH), generator=generator)
        lengths = torch.randint(LENGTH // 2, LENGTH + 1, (num, 1), generator=generator)
        self.counts = torch.arange(LENGTH) < lengths
        frequency = nn.functional.one_hot(self.tokens, NUM_TOKENS) * self.counts[..., None]
        self.targets = frequency.sum(1).argmax(1)

    def __getitem__(self, idx):
        return {"tokens": self.tokens[idx], "counts": self.counts[idx]}, self.targets[idx]

    def __len__(self):
        return len(self.tokens)


class MajorityNet(nn.Module):
    """Embedding, one encoder layer, mean over the tokens that count, linear output."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1, batch_first=True)
        self.output = nn.Linear(WIDTH, NUM_TOKENS)

    def forward(self, inputs):
        """Return the scores of all tokens."""
        counts = inputs["counts"]
        x = self.encoder(self.embedding(inputs["tokens"]), src_key_padding_mask=~counts)
        mean = (x * counts[..., None]).sum(1) / counts.sum(1, keepdim=True)
        return self.output(mean)


def network():
    """Return the network; its weights follow from RANDOM_SEED."""
    return MajorityNet()


def loss(outputs, targets):
    """Return the mean cross-entropy. A function will do, too."""
    return nn.functional.cross_entropy(outputs, targets)


def data(split):
    """Return the data points of "train" or "test"."""
    return Sequences(NUM_POINTS[split], seed=int(split == "test"))


def regularization(net):
    """Return the L2 term of the updates: weight decay on the output layer alone."""
    return 0.5 * 1e-3 * net.output.weight.square().sum()
