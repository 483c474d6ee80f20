"""What a decoder is: its sizes, its family and its positions."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's change of the rotary frequencies for longer sequences: see `rotary_frequencies`."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_max_length: int

    def __post_init__(self):
        if not 0 < self.low_frequency_factor < self.high_frequency_factor or self.factor < 1:
            raise ValueError(f"{self}: needs factor >= 1 and 0 < low_frequency_factor < high_frequency_factor")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder. `max_length` is the longest sequence the model was made for; it is not enforced here.

    With a `sliding_window` a token attends to that many positions, itself and those before it, in all layers but
    `full_layers`; None is all positions in all layers.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    max_length: int = 2048
    family: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    full_layers: tuple[int, ...] = ()

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide by num_kv_heads={self.num_kv_heads}: "
                "every key-value head serves the same number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs, choose an even head_dim")
        if self.family not in ("llama", "mistral", "qwen2", "qwen3"):
            raise ValueError(f"family={self.family!r} is unknown: choose 'llama', 'mistral', 'qwen2' or 'qwen3'")
        if self.sliding_window is not None and (self.sliding_window < 1 or self.family == "llama"):
            raise ValueError(
                f"sliding_window={self.sliding_window} does not fit family={self.family!r}: use 1 or more, and None "
                "for llama, which attends to all positions"
            )
        possible = range(self.num_layers) if self.sliding_window and self.family != "mistral" else ()
        if not set(self.full_layers) <= set(possible) or len(self.full_layers) == self.num_layers:
            raise ValueError(
                f"full_layers={self.full_layers} does not fit family={self.family!r} with {self.num_layers} layers and "
                f"sliding_window={self.sliding_window}: name some layers, not all, of a qwen2 or qwen3 with a window"
            )

    @property
    def attention_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases: in Qwen2 alone."""
        return self.family == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether each head's query and key are normalised before they are rotated: in Qwen3 alone."""
        return self.family == "qwen3"
