"""What a picture read of its prompt, shown: heat maps, a trace of the steps, a page (docs/sight.md)."""
