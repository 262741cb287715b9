"""`transformers serve` where torchvision is not installed: its processor is replaced by the image-only one.

    python benchmarks/serve_transformers.py serve MODEL --device cpu --port 8001

Without torchvision the official processor of Qwen2.5-VL cannot be loaded (it wants a video processor). Everything else
is the peer's own code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import AutoProcessor
from transformers.cli.transformers import main

from safeladder.models.processors import load_processor


def image_only(cls: Any, path: str, **_: Any) -> Any:
    return load_processor(Path(path))


if __name__ == "__main__":
    AutoProcessor.from_pretrained = classmethod(image_only)  # type: ignore[assignment]
    sys.exit(main())
