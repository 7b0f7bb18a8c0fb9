"""Loads the numbered scripts, whose names cannot be imported, so that tests run them in-process."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parent.parent


def load_script(name: str) -> ModuleType:
    """Return the script ``name`` (with its ``.py``) as a module, without running its ``main``."""
    module_name = f"script_{Path(name).stem}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, REPOSITORY / name)
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their own module up there.
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    return sys.modules[module_name]
