"""Each character in its own channel: groups of tokens, regions of the picture, and what attention is told.

The parts are named in `newbie_image.binding_modes`; `docs/binding.md` says what each does and costs.
"""
