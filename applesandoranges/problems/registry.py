"""The problems: network, data, loss and L2 term of each, rebuilt identically from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from skerch.errors import InputError

from ..app.spelling import check_name
from . import deepobs
from .datasets import Transform


def net_mnist_mini() -> nn.Sequential:
    """Return the MLP 256-20-20-20-20-20-10 with tanh, initialised twice.

    The second initialisation is part of the published experiments: it decides which weights a seed
    gives.
    """
    widths = (256, 20, 20, 20, 20, 20, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return net


@dataclass(frozen=True)
class ProblemSpec:
    """What a problem is made of.

    Attributes:
        data: Key of :data:`applesandoranges.problems.datasets.DATASETS`.
        network: Builds the network; draws its weights from torch's global generator.
        num_params: Number of parameters ``D``.
        transform: Makes the transform from images to tensors, deterministic.
        augmentation: Makes the random transform of the training data; without one they are
            deterministic.
        deepobs: Test problem in DeepOBS that says which parameters the L2 term penalises; without
            one there is no such term.
        l2: Factor of the L2 term; without one it is DeepOBS's own.
    """

    data: str
    network: Callable[[], nn.Module]
    num_params: int
    transform: Callable[[], Transform]
    augmentation: Callable[[], Transform] | None = None
    deepobs: str | None = None
    l2: float | None = None


# torchvision takes seconds to import; it is, like DeepOBS, when a problem is built.


def _to_tensor() -> Transform:
    from torchvision import transforms

    return transforms.ToTensor()


def _shrunk_to_tensor() -> Transform:
    from torchvision import transforms

    return transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])


def _imagenet_transform() -> Transform:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def _resnet(name: str) -> nn.Module:
    from torchvision import models

    return getattr(models, name)(num_classes=1000)


def _cifar(
    data: str, name: str, num_params: int, augmented: bool, l2: float | None = None, **options: Any
) -> ProblemSpec:
    """Return a problem of DeepOBS; ``options`` are those of its network."""
    transform = partial(deepobs.training_transform, data.lower())
    return ProblemSpec(
        data,
        partial(deepobs.network, name, **options),
        num_params,
        partial(transform, augmented=False),
        partial(transform, augmented=True) if augmented else None,
        deepobs=name,
        l2=l2,
    )


_cifar10 = partial(_cifar, "CIFAR10", "cifar10_3c3d", 895_210, num_outputs=10)
_cifar100 = partial(_cifar, "CIFAR100", "cifar100_allcnnc", 1_387_108)

PROBLEMS: dict[str, ProblemSpec] = {
    "mnist_mini": ProblemSpec("MNIST", net_mnist_mini, 7_030, _shrunk_to_tensor),
    "fmnist_mlp": ProblemSpec(
        "FashionMNIST",
        partial(deepobs.network, "mlp", num_outputs=10),
        1_336_610,
        _to_tensor,
        deepobs="fmnist_mlp",
    ),
    "fmnist_2c2d": ProblemSpec(
        "FashionMNIST",
        partial(deepobs.network, "mnist_2c2d", num_outputs=10),
        3_274_634,
        _to_tensor,
        deepobs="fmnist_2c2d",
    ),
    "cifar10_3c3d": _cifar10(augmented=True),
    "cifar10det_3c3d": _cifar10(augmented=False, l2=0.1),
    "cifar100_allcnnc": _cifar100(augmented=True),
    "cifar100det_allcnnc": _cifar100(augmented=False),
    "imagenetdet_resnet18": ProblemSpec(
        "ImageNet", partial(_resnet, "resnet18"), 11_689_512, _imagenet_transform
    ),
    "imagenetdet_resnet50": ProblemSpec(
        "ImageNet", partial(_resnet, "resnet50"), 25_557_032, _imagenet_transform
    ),
}

_NOT_USED = "no experiment used it: it has neither training settings nor a Hessian that was checked"
_RANDOM_LOSS = "its loss draws random numbers, and so its Hessian is random"
_NO_PYTORCH = "DeepOBS 1.1.2 has no PyTorch version of it"

#: Test problems of DeepOBS that are none here, with the reason.
REFUSED: dict[str, str] = {
    "mnist_logreg": _NOT_USED,
    "mnist_mlp": _NOT_USED,
    "mnist_2c2d": _NOT_USED,
    "cifar100_3c3d": _NOT_USED,
    "svhn_wrn164": f"{_NOT_USED}; 09a does not prepare SVHN",
    "mnist_vae": _RANDOM_LOSS,
    "fmnist_vae": _RANDOM_LOSS,
    "quadratic_deep": "it has no classes, of which Hessians here take equally many data points",
    **dict.fromkeys(
        (
            "fmnist_logreg", "svhn_3c3d", "cifar10_vgg16", "cifar10_vgg19", "cifar100_vgg16",
            "cifar100_vgg19", "cifar100_wrn404", "imagenet_vgg16", "imagenet_vgg19",
            "imagenet_inception_v3", "tolstoi_char_rnn", "two_d_beale", "two_d_branin",
            "two_d_rosenbrock",
        ),
        _NO_PYTORCH,
    ),
}  # fmt: skip


def check_problem(name: str, where: str = "") -> None:
    """Check that ``name`` is a problem.

    Args:
        name: The name.
        where: What it stands in, for the error message.

    Raises:
        InputError: If not; in one line with the reason, if it is a test problem of DeepOBS, and
            with all problems there are.
    """
    if name in REFUSED:
        raise InputError(
            f"problem{where} {name!r}: {REFUSED[name]}; there are {', '.join(PROBLEMS)}"
        )
    try:
        check_name(f"problem{where}", name, PROBLEMS)
    except InputError as error:
        raise InputError(f"{error}; one of your own is a path that ends in .py") from None
