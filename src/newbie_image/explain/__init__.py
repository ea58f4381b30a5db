"""What a picture read of its prompt, shown: heat maps, a trace of the steps, a page (docs/sight.md)."""

from typing import Final

DEFAULT_KIND: Final = "attention"
DEFAULT_BLOCKS: Final = "all"
"""What `benchmarks/heat_maps.py` found to lie best where the tags were drawn."""
DEFAULT_PREVIEWS: Final = 6
