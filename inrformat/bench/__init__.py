"""Rate and distortion of this format and of its peers, measured alike: `inrformat bench`.

`codec` says what a codec is; `ours`, `still` and `video` have them; `measure` makes a point, `curves`
compares curves, `report` makes what is written, and `run` does all of it.
"""

from .ours import RATIOS
from .run import CODECS, bench, choose

__all__ = ["CODECS", "RATIOS", "bench", "choose"]
