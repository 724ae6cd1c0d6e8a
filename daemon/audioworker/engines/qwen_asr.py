"""qwen_asr: Qwen3-ASR on transformers' own classes, either layout of the checkpoint, any length of audio.

Owns how chunks become calls, and tokens become text. Reading checkpoints is qwen3.py's, finding speech speech.py's, and
piecewise.py makes segments. Exact times of words are another model's, the forced aligner's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from audioproto.errors import BadRequest
from audioproto.spacing import glue
from audioproto.types import PCM_RATE_IN, EngineSpec, Hold
from audioproto.worker import Delta, Segment, Transcribe
from audioworker import device, engine, piecewise, qwen3, speech
from audioworker.batching import Batcher
from audioworker.engine import Audio, Cancelled
from audioworker.jobs import Job
from audioworker.piecewise import Said

if TYPE_CHECKING:
    import torch

_OPTIONS: dict[str, Any] = {"dtype": "auto", "attention": "sdpa", "chunk_s": 30, "vad": True}

_REPEATS, _LONGEST_REPEATED = 20, 10
"""So many repetitions of up to so many tokens are a model that is stuck."""


class Engine(engine.Engine, engine.Transcriber):
    """`model_dir` holds a Qwen3-ASR checkpoint, in the released or in the `-hf` layout.

    Options: `dtype` ("auto": float32 on a CPU, bfloat16 on a GPU from Ampere on, else float16; or one of these),
    `attention` ("sdpa", "eager" or "flash_attention_2"), `chunk_s` (30; 5 to 300: seconds of audio in one piece, which
    bounds the memory: the attention's cache takes 1.5 MB a second, and a segment is what one piece says), `vad` (true:
    what is not speech is never put before the model; false hears everything above -60 dB, for songs over loud music).

    Several threads may call `transcribe` at once. One call computes at a time, for up to `spec.max_batch` of them; a
    job that is paused or given up leaves its call at the next token, and later goes on from there.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        options = qwen3.options(spec, "qwen_asr", _OPTIONS)
        self._dtype, self._attention = options["dtype"], options["attention"]
        self._chunk_s, self._vad = options["chunk_s"], options["vad"]
        self._batcher: Batcher[float, _Writing, None] = Batcher(
            self.jobs, self._compute, spec.max_batch, spec.max_batch_wait_s
        )

    def prepare(self) -> None:
        self._cut = speech.cutter(self._vad, self.jobs.rest)
        self.progress("importing transformers")
        device.prepare_torch()
        self.progress("reading the weights")
        on_cpu = "float32" if self._dtype == "auto" else self._dtype
        self._checkpoint = qwen3.read(
            self.spec, "asr", on_cpu if self.spec.device == "cpu" else "auto", self._attention
        )

    def load(self) -> None:
        self.progress("moving the weights")
        qwen3.move(self._checkpoint.model, self.spec.device, self._dtype, self.spec.threads)
        self._ends = {self._checkpoint.id_of(mark) for mark in ("<|im_end|>", "<|endoftext|>")}
        self._text_mark = self._checkpoint.id_of("<asr_text>")

    def warm(self) -> None:
        """A second of noise: kernels are chosen, memory pools made."""
        noise = np.random.default_rng(0).normal(0, 0.1, PCM_RATE_IN).astype(np.float32)
        writing = self._begin(noise, _Asked(), limit=4)
        self._batcher(0.0, writing)

    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Generator[Segment, None, str]:
        if request.translate_to:
            raise BadRequest(f"{self.spec.model} does not translate", param="translate_to")
        asked = _Asked(
            qwen3.name_of_language(self.spec, request.language, "language"),
            [qwen3.name_of_language(self.spec, language, "languages[]") for language in request.languages],
            self._checkpoint.context(request),
            request.temperature,
        )

        def hear(chunk: Audio, before: str) -> Said:
            writing = self._begin(chunk, asked, before)
            if request.deltas:
                writing.tell = lambda text: self.on_delta(Delta(request.job, text))
            while not writing.ended:
                self._batcher(asked.temperature, writing)
                self.jobs.rest()
            tokens = writing.tokens
            likely = float(np.mean(writing.logprobs[-len(tokens) :])) if tokens else 0.0
            return Said(writing.text(), writing.language(), writing.endless, tokens, likely)

        places = self._cut(audio, self._chunk_s)
        return (yield from piecewise.transcribe(audio, places, request, hear, self.jobs, cancelled))

    def _begin(self, chunk: Audio, asked: _Asked, before: str = "", limit: int = 0) -> _Writing:
        """The model's input for a chunk, computed on the job's own thread."""
        forced = f"language {asked.language}<asr_text>" if asked.language else ""
        prompt = (
            f"<|im_start|>system\n{asked.context}<|im_end|>\n"
            f"<|im_start|>user\n{qwen3.AUDIO}<|im_end|>\n<|im_start|>assistant\n{forced}"
        )
        processor = self._checkpoint.processor
        inputs = processor(text=[prompt], audio=[chunk], return_tensors="pt")
        names = [] if forced else filter(None, asked.candidates)
        openings = [processor.tokenizer(f"language {name}<asr_text>").input_ids for name in names]
        return _Writing(
            engine=self,
            job=self.jobs.mine,
            prompt=inputs["input_ids"][0].tolist(),
            features=inputs["input_features"][0],
            mask=inputs["input_features_mask"][0],
            limit=limit or piecewise.most_tokens(chunk),
            forced=asked.language,
            openings=openings,
            before=before,
        )

    def _compute(self, temperature: float, writings: Sequence[_Writing]) -> Sequence[None]:
        """Have the model write on, for all of them together, until each has ended or is to stop."""
        import torch
        from torch.nn.functional import pad
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        model = self._checkpoint.model
        ids = [writing.prompt + writing.written for writing in writings]
        longest = max(map(len, ids))
        frames = max(writing.features.shape[-1] for writing in writings)
        filler = min(self._ends)
        inputs = {
            "input_ids": torch.tensor([[filler] * (longest - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
            "input_features": torch.stack([pad(w.features, (0, frames - w.features.shape[-1])) for w in writings]).to(
                model.dtype
            ),
            "input_features_mask": torch.stack([pad(w.mask, (0, frames - w.mask.shape[-1])) for w in writings]),
        }
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
        settings = GenerationConfig(
            max_new_tokens=max(writing.limit for writing in writings) + 1,
            eos_token_id=sorted(self._ends),
            pad_token_id=filler,
            **sampling,
        )
        follower = _Follower(writings)
        with torch.inference_mode():
            model.generate(
                **{name: tensor.to(model.device) for name, tensor in inputs.items()},
                generation_config=settings,
                logits_processor=LogitsProcessorList([follower.before]),
                stopping_criteria=StoppingCriteriaList([follower.after]),
            )
        return [None] * len(writings)


@dataclass
class _Asked:
    """What all chunks of a job have in common. Languages by the model's names."""

    language: str = ""
    candidates: Sequence[str] = ()
    context: str = ""
    temperature: float = 0.0


@dataclass
class _Writing:
    """One chunk and what the model has written of it so far."""

    engine: Engine
    job: Job | None
    prompt: list[int]
    features: torch.Tensor
    mask: torch.Tensor
    limit: int
    forced: str
    openings: list[list[int]]
    """If any: token sequences of which the text is to begin with one."""
    before: str
    tell: Callable[[str], None] | None = None
    written: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Of each token, as natural logarithms."""
    ended: bool = False
    endless: bool = False
    """Ended without the model having come to an end."""
    _told: int = 0
    """Tokens whose text has been told."""
    _telling: bool = False

    def take(self, token: int, logprob: float) -> bool:
        """Add a token; whether the model may stop."""
        if token in self.engine._ends:
            self.ended = True
            return True
        self.written.append(token)
        self.logprobs.append(logprob)
        if self.tell:
            self._tell(self.tell)
        if len(self.written) >= self.limit or self._is_stuck():
            self.ended = self.endless = True
        return self.ended or (self.job is not None and self.job.to_stop)

    def _is_stuck(self) -> bool:
        for length in range(1, _LONGEST_REPEATED + 1):
            tail = self.written[-length * _REPEATS :]
            if len(tail) == length * _REPEATS and tail == tail[:length] * _REPEATS:
                return True
        return False

    def allowed(self) -> set[int]:
        """The tokens that may follow; empty for any."""
        at = len(self.written)
        return {opening[at] for opening in self.openings if len(opening) > at and opening[:at] == self.written}

    @property
    def tokens(self) -> list[int]:
        """Those of the text: what comes after the mark, or everything where the language was given."""
        mark = self.engine._text_mark
        return self.written[self.written.index(mark) + 1 :] if mark in self.written else self.written

    def text(self) -> str:
        processor = self.engine._checkpoint.processor
        parsed = processor.parse_output("language None<asr_text>" + self._decode(self.tokens))
        plain: str = self.engine._checkpoint.plain(parsed["transcription"]).strip()
        return plain

    def language(self) -> str:
        """The code of the language that was given or recognised; of several the first, "" for none."""
        name = self.forced
        mark = self.engine._text_mark
        if not name and mark in self.written:
            opening = self._decode(self.written[: self.written.index(mark)])
            name = opening.strip().removeprefix("language").strip().partition(",")[0]
        return "" if name.lower() in ("", "none") else qwen3.code_of_language(name)

    def _decode(self, tokens: Sequence[int]) -> str:
        decoded: str = self.engine._checkpoint.processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return decoded

    def _tell(self, tell: Callable[[str], None]) -> None:
        """Tell the text that has come to be whole: a token may be part of a character."""
        if not self.forced and self.engine._text_mark not in self.written:
            return
        text = self.engine._checkpoint.plain(self._decode(self.tokens[self._told :]))
        if text.endswith("\ufffd"):
            return
        self._told = len(self.tokens)
        if not self._telling:
            text = text.lstrip()
            text = glue(self.before, text) + text
        if text:
            self._telling = True
            tell(text)


class _Follower:
    """What `generate` calls at each token, for all rows of a call: before it is chosen, and after."""

    def __init__(self, writings: Sequence[_Writing]) -> None:
        self._writings = writings
        self._stopped = [False] * len(writings)
        self._scores: Any = None

    def before(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """A logits processor: bars what may not follow, and keeps the rest to tell how likely it was."""
        import torch

        for row, writing in enumerate(self._writings):
            if not self._stopped[row] and (allowed := sorted(writing.allowed())):
                kept = scores[row, allowed]
                scores[row] = -torch.inf
                scores[row, allowed] = kept
        self._scores = scores
        return scores

    def after(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """A stopping criterion: hands each row its token; whether each is to stop."""
        import torch

        chosen = input_ids[:, -1:]
        likely = self._scores.gather(1, chosen)[:, 0].float() - torch.logsumexp(self._scores.float(), dim=-1)
        tokens, logprobs = chosen[:, 0].tolist(), likely.tolist()
        for row, writing in enumerate(self._writings):
            # A row that has stopped is filled up with ends of text while the others go on.
            self._stopped[row] = self._stopped[row] or writing.take(tokens[row], logprobs[row])
        return torch.tensor(self._stopped, device=input_ids.device)
