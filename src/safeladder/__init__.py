"""safeladder: train, steer, search with and evaluate safe multimodal reasoning models.

Start with `safeladder.types` (the nouns) and `safeladder.config` (the recipe). Importing the package loads
neither torch nor transformers.
"""

from __future__ import annotations

__version__ = "0.1.0"
