"""What the phases of IndexTTS-2.5 compute that IndexTTS2 does otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from audioproto.worker import Sampling
from audioworker.indextts.checkpoint25 import Checkpoint25
from audioworker.indextts.phases import Phases, Voice, Written

if TYPE_CHECKING:
    import torch


class Phases25(Phases[Checkpoint25]):
    """The language model knows a voice by its `style`, and the language of a text; codes are 25 a second."""

    def __init__(
        self, made: Checkpoint25, device: torch.device, at_token: Callable[[], None], half: torch.dtype | None
    ) -> None:
        super().__init__(made, device, at_token, half)
        made.gpt.post_init_gpt2_config()

    def _content(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def write(
        self,
        ids: list[int],
        language: str,
        voice: Voice,
        emotion: torch.Tensor,
        sampling: Sampling,
        beams: int,
        most: int,
    ) -> Written:
        import torch
        from indextts25.utils.tokenizer import lang_to_token

        gpt = self._made.gpt
        with self._in_half():
            written = gpt.inference_speech(
                torch.tensor([ids], dtype=torch.int32, device=self._device),
                torch.tensor([lang_to_token(language)], device=self._device),
                emotion,
                voice["style"],
                max_generate_length=most,
                **self._choosing(sampling, beams),
            )
        return (self._ended(written[0]),)

    def _meaning(self, *written: torch.Tensor) -> torch.Tensor:
        meaning: torch.Tensor = self._made.codec.decode(written[0])
        return meaning

    def _stretched(self, content: torch.Tensor, frames: int) -> torch.Tensor:
        import torch

        wanted = torch.tensor([frames], device=self._device)
        stretched: torch.Tensor = self._made.s2mel.models["length_regulator"](content, ylens=wanted)
        return stretched
