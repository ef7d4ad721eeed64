"""Anyone's model by ``module:factory``, imported from the current folder or from what is installed.

This runs the module's code, as Python's own ``import`` does: name only modules that you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

from torch import nn

from pysim.errors import ModelError

_HINT = "Write module:factory; the module is looked for in the current folder, then among the installed ones."


def is_user_model(name: str) -> bool:
    """Whether ``name`` is of the form ``module:factory``."""
    return ":" in name


def build_user_model(name: str) -> nn.Module:
    """Calls the factory without arguments.

    Raises:
        ModelError: The module or the factory is not there, or it fails, or it does not return a module.
    """
    module_name, _, factory_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *factory_name.split(".")]):
        raise ModelError(f"model {name!r}: expected module:factory, as in mypkg.models:build", hint=_HINT)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        factory: object = importlib.import_module(module_name)
        for part in factory_name.split("."):
            factory = getattr(factory, part)
        if not callable(factory):
            raise ModelError(f"model {name!r}: expected {factory_name} to be callable, got {factory!r}")
        model = factory()
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(f"model {name!r}: {error}", hint=_HINT) from error
    except AttributeError as error:
        raise ModelError(f"model {name!r}: {error}", hint=_HINT) from error
    except (
        Exception
    ) as error:  # whatever foreign code raises is one error line here, a traceback with --debug
        raise ModelError(f"model {name!r}: its code failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r}: expected a torch.nn.Module, got {type(model).__name__}")
    return model


def user_model_digest(name: str) -> str:
    """SHA-256 over the loaded Python files of the model's top package: its identity in caches."""
    top = name.partition(":")[0].partition(".")[0]
    digest = hashlib.sha256(name.encode())
    for module_name, module in sorted(sys.modules.items()):
        source = getattr(module, "__file__", None)
        if module_name.partition(".")[0] == top and source is not None and Path(source).is_file():
            digest.update(module_name.encode())
            digest.update(Path(source).read_bytes())
    return digest.hexdigest()
