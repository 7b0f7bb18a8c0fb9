"""An MLP on the 1,797 digits (8 x 8) of scikit-learn: a problem of a file, as simple as it gets.

python 10a_gather_params_grads.py PROBLEM=examples/digits_mlp.py RECORD_STEPS=[0,100] ...
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

#: The last ones are the test data.
NUM_TRAIN = 1500

# A mean over the mini-batch. Class weights, label smoothing, losses of your own: as you like.
loss = nn.CrossEntropyLoss()

settings = {
    "batch_size": 100,
    "num_epochs": 10,
    "SGD": {"lr_schedule": None, "opt_hpars": {"lr": 0.2}},
}


def network():
    """Return the network; its weights follow from RANDOM_SEED."""
    return nn.Sequential(
        nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10)
    )


def _digits(split):
    images, labels = load_digits(return_X_y=True)
    part = slice(NUM_TRAIN) if split == "train" else slice(NUM_TRAIN, None)
    return torch.tensor(images[part], dtype=torch.float32) / 16, torch.tensor(labels[part])


def data(split):
    """Return the data points of "train" or "test"."""
    return TensorDataset(*_digits(split))


def classes(split):
    """Return the class of each: Hessians take equally many images of each digit."""
    return _digits(split)[1]
