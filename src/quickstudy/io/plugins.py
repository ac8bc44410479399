"""Things of other packages by name: `package.module:attribute`, also from the working directory."""

import importlib
import os
import sys
from typing import Any

from quickstudy.errors import QuickstudyError


def load_attribute(name: str) -> Any:
    """What a module calls by this name.

    Raises:
        QuickstudyError: no such module or attribute, or the module fails.
    """
    module_name, attribute = name.split(":", 1)
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way
        raise QuickstudyError(f"Could not import '{module_name}' ({type(error).__name__}: {error}).") from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(module, attribute):
        raise QuickstudyError(f"Module '{module_name}' has no '{attribute}'.")
    return getattr(module, attribute)
