"""What the phases of IndexTTS2 compute that IndexTTS-2.5 does otherwise, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from audioproto.worker import Sampling
from audioworker.indextts import emotions
from audioworker.indextts.checkpoint2 import Checkpoint2
from audioworker.indextts.phases import Phases, Voice, Written

if TYPE_CHECKING:
    import torch

_MOST_EMOTION_TOKENS = 200
"""Of the emotion model's answer, which is eight values in JSON."""


class Phases2(Phases[Checkpoint2]):
    """A voice has `speaker` [1, 32, width] too; codes come with the hidden states behind them, [1, n, width]."""

    def __init__(
        self, made: Checkpoint2, device: torch.device, at_token: Callable[[], None], half: torch.dtype | None
    ) -> None:
        super().__init__(made, device, at_token, half)
        self._writer = _writer(made)

    def _content(self, features: torch.Tensor) -> torch.Tensor:
        content: torch.Tensor = self._made.codec.quantize(features)[1]
        return content

    def _conditions(self, features: torch.Tensor, length: torch.Tensor) -> Voice:
        speaker = self._made.gpt.get_conditioning(features.transpose(1, 2), length)
        return {"speaker": speaker} | super()._conditions(features, length)

    def describe(self, described: str) -> str:
        """The emotion model's answer about a text. Part `emotion`."""
        made = self._made
        asked = [{"role": "system", "content": emotions.PROMPT}, {"role": "user", "content": described}]
        prompt = made.emotion_tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        inputs = made.emotion_tokenizer([prompt], return_tensors="pt").to(self._device)
        written = made.emotion_model.generate(
            **inputs,
            max_new_tokens=_MOST_EMOTION_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=made.emotion_tokenizer.eos_token_id,
            stopping_criteria=[self._watch],
        )[0, inputs["input_ids"].shape[1] :]
        answer: str = made.emotion_tokenizer.decode(written, skip_special_tokens=True)
        return answer

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

        gpt = self._made.gpt
        words = torch.tensor([ids], dtype=torch.int32, device=self._device)
        zero = torch.zeros(1, dtype=torch.long, device=self._device)
        with self._in_half():
            durations = (gpt.speed_emb(zero + 1).unsqueeze(1), gpt.speed_emb(zero).unsqueeze(1))
            conditions = torch.cat((voice["speaker"] + emotion.unsqueeze(1), *durations), 1)
            prompt, embedded, mask = gpt.prepare_gpt_inputs(conditions, words)
            self._writer.store_mel_emb(embedded)
            written = self._writer.generate(
                prompt,
                bos_token_id=gpt.start_mel_token,
                pad_token_id=gpt.stop_mel_token,
                eos_token_id=gpt.stop_mel_token,
                attention_mask=mask,
                max_length=prompt.shape[1] + most,
                **self._choosing(sampling, beams),
            )[0, prompt.shape[1] :]
            codes = self._ended(written)
            hidden = gpt(
                voice["speaker"],
                words,
                zero + words.shape[1],
                codes,
                zero + codes.shape[1],
                None,
                emo_vec=emotion,
                use_speed=zero,
            )
        return codes, hidden.float()

    def _meaning(self, *written: torch.Tensor) -> torch.Tensor:
        codes, hidden = written
        content = self._made.codec.quantizer.vq2emb(codes.unsqueeze(1)).transpose(1, 2)
        meaning: torch.Tensor = content + self._made.s2mel.models["gpt_layer"](hidden)
        return meaning

    def _stretched(self, content: torch.Tensor, frames: int) -> torch.Tensor:
        import torch

        wanted = torch.tensor([frames], device=self._device)
        regulator = self._made.s2mel.models["length_regulator"]
        stretched: torch.Tensor = regulator(content, ylens=wanted, n_quantizers=3, f0=None)[0]
        return stretched

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"speaker": (1, self._made.gpt.cond_num, self._made.gpt.model_dim)} | super()._shapes()


def _writer(made: Checkpoint2) -> Any:
    """The language model as transformers' `generate` wants it, made as the library does (post_init_gpt2_config)."""
    import torch
    from indextts.gpt.model_v2 import GPT2InferenceModel
    from transformers import GPT2Config

    gpt = made.gpt

    class Writer(GPT2InferenceModel):  # type: ignore[misc]
        # `generate` goes by the name of **kwargs; from transformers 5.18 on it leaves out a mask that masks nothing.
        def prepare_inputs_for_generation(self, input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("attention_mask") is None:
                kwargs["attention_mask"] = torch.ones_like(input_ids)
            return super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, **kwargs)

    config = GPT2Config(
        vocab_size=gpt.number_mel_codes,
        n_positions=gpt.max_mel_tokens + gpt.max_text_tokens + 2,
        n_embd=gpt.model_dim,
        n_layer=gpt.layers,
        n_head=gpt.heads,
        bos_token_id=gpt.start_mel_token,
        eos_token_id=gpt.stop_mel_token,
    )
    gpt.gpt.wte = gpt.mel_embedding
    return Writer(
        config, gpt.gpt, gpt.mel_pos_embedding, gpt.mel_embedding, gpt.final_norm, gpt.mel_head, kv_cache=True
    ).eval()
