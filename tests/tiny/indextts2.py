"""Makes tiny IndexTTS2 checkpoints, with all that belongs to one; run by the runtime's Python.

    indextts2.py DIRECTORY '{"NAME": {"codes": 25}, ...}'

Arguments of a checkpoint are those of `make`. The networks, the tokenizers and the files are the library's. By hand:

    language model  writes `codes` codes of 20 ms for each part of a text, whatever is drawn, and then ends; -1: never
    emotion model   answers every text with the same JSON, EMOTION
    vocoder         is as loud as speech, -20 dB: the library's first weights are silence
    w2v-bert-2.0    has a width of 1, of which the statistics make 1024: features do not tell voices apart, but CAM++
                    and the spectrogram do

What no configuration makes small: the language model's width of 1280, and CAM++ with 7 million parameters. With `size`
"full" a checkpoint has the dimensions of the released one (IndexTeam/IndexTTS-2, config.yaml), and weights as a model
has before it is trained. Knows of audiod how it imports the library, and nothing else.
"""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from audioworker import device
from audioworker.indextts import checkpoint2

WIDTH, FEATURES = 1280, 1024
RATE_HZ, MELS, HOP = 22_050, 80, 256

EMOTION = {"高兴": 0.1, "愤怒": 0.7, "悲伤": 0.0, "恐惧": 0.0, "反感": 0.0, "低落": 0.0, "惊讶": 0.0, "自然": 0.1}
EMOTION_COUNTS = [3, 17, 2, 8, 4, 5, 10, 24]

TINY: dict[str, Any] = {
    "codebook": 64, "layers": 1, "max_mel": 1815, "max_text": 600, "text": 0,
    "conditioner": {"output_size": 8, "linear_units": 8, "attention_heads": 1, "num_blocks": 1, "perceiver_mult": 0.02},
    "emotion_conditioner": {"output_size": 8, "linear_units": 8, "attention_heads": 1, "num_blocks": 1,
                            "perceiver_mult": 0.02},
    "vocos": {"codebook_dim": 8, "vocos_dim": 8, "vocos_intermediate_dim": 8, "vocos_num_layers": 1},
    "channels": 16, "heads": 2, "depth": 3, "wavenet_layers": 2,
    "w2v": {"hidden_size": 1, "num_attention_heads": 1, "intermediate_size": 1, "output_hidden_size": 1,
            "conv_depthwise_kernel_size": 3, "num_hidden_layers": 17},
    "vocoder": {"upsample_initial_channel": 64, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]]},
    "emotion": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 8},
}  # fmt: skip

FULL: dict[str, Any] = {
    "codebook": 8192, "layers": 24, "max_mel": 1815, "max_text": 600, "text": 12_000,
    "conditioner": {"output_size": 512, "linear_units": 2048, "attention_heads": 8, "num_blocks": 6,
                    "perceiver_mult": 2},
    "emotion_conditioner": {"output_size": 512, "linear_units": 1024, "attention_heads": 4, "num_blocks": 4,
                            "perceiver_mult": 2},
    "vocos": {"codebook_dim": 8, "vocos_dim": 384, "vocos_intermediate_dim": 2048, "vocos_num_layers": 12},
    "channels": 512, "heads": 8, "depth": 13, "wavenet_layers": 8,
    "w2v": {"hidden_size": FEATURES, "num_attention_heads": 16, "intermediate_size": 4096,
            "output_hidden_size": FEATURES, "num_hidden_layers": 24},
    "vocoder": {"upsample_initial_channel": 1536, "resblock_kernel_sizes": [3, 7, 11],
                "resblock_dilation_sizes": [[1, 3, 5]] * 3},
    "emotion": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
                "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip

TEXT = (
    "the quick brown fox jumps over the lazy dog while five boxing wizards pack a jug of liquor hello world this is a "
    "test of speech synthesis it works zero one two three four six seven eight nine ten yes no please thank you"
).upper()
CHINESE = "你好世界一二三四五六七八九十百千零点年月日的是在我们有人这中大来上国个到说们为子和你地出道也时"


def configuration(size: dict[str, Any], text_tokens: int) -> dict[str, Any]:
    channels = size["channels"]
    return {
        "dataset": {"bpe_model": "bpe.model", "sample_rate": 24_000},
        "gpt": {
            "model_dim": WIDTH, "max_mel_tokens": size["max_mel"], "max_text_tokens": size["max_text"], "heads": 20,
            "use_mel_codes_as_input": True, "mel_length_compression": 1024, "layers": size["layers"],
            "number_text_tokens": text_tokens, "number_mel_codes": size["codebook"] + 2,
            "start_mel_token": size["codebook"], "stop_mel_token": size["codebook"] + 1,
            "start_text_token": 0, "stop_text_token": 1, "train_solo_embeddings": False,
            "condition_type": "conformer_perceiver",
            "condition_module": size["conditioner"] | {"input_layer": "conv2d2"},
            "emo_condition_module": size["emotion_conditioner"] | {"input_layer": "conv2d2"},
        },
        "semantic_codec": {"codebook_size": size["codebook"], "hidden_size": FEATURES} | size["vocos"],
        "s2mel": {
            "preprocess_params": {
                "sr": RATE_HZ,
                "spect_params": {"n_fft": 1024, "win_length": 1024, "hop_length": HOP, "n_mels": MELS, "fmin": 0,
                                 "fmax": "None"},
            },
            "dit_type": "DiT", "reg_loss_type": "l1", "style_encoder": {"dim": 192},
            "length_regulator": {
                "channels": channels, "is_discrete": False, "in_channels": FEATURES, "content_codebook_size": 2048,
                "sampling_ratios": [1, 1, 1, 1], "vector_quantize": False, "n_codebooks": 1, "quantizer_dropout": 0.0,
                "f0_condition": False, "n_f0_bins": 512,
            },
            "DiT": {
                "hidden_dim": channels, "num_heads": size["heads"], "depth": size["depth"], "class_dropout_prob": 0.1,
                "block_size": 8192, "in_channels": MELS, "style_condition": True, "final_layer_type": "wavenet",
                "target": "mel", "content_dim": channels, "content_codebook_size": 1024, "content_type": "discrete",
                "f0_condition": False, "n_f0_bins": 512, "content_codebooks": 1, "is_causal": False,
                "long_skip_connection": True, "zero_prompt_speech_token": False, "time_as_token": False,
                "style_as_token": False, "uvit_skip_connection": True, "add_resblock_in_transformer": False,
            },
            "wavenet": {"hidden_dim": channels, "num_layers": size["wavenet_layers"], "kernel_size": 5,
                        "dilation_rate": 1, "p_dropout": 0.2, "style_condition": True},
        },
        "gpt_checkpoint": "gpt.pth", "w2v_stat": "wav2vec2bert_stats.pt", "s2mel_checkpoint": "s2mel.pth",
        "emo_matrix": "feat2.pt", "spk_matrix": "feat1.pt", "emo_num": EMOTION_COUNTS,
        "qwen_emo_path": "qwen0.6bemo4-merge/", "vocoder": {"type": "bigvgan", "name": "hf_cache/bigvgan"},
        "version": 2.0,
    }  # fmt: skip


def make(directory: Path, size: str = "tiny", codes: int = 25, seed: int = 0) -> None:
    from munch import munchify

    torch.manual_seed(seed)
    random.seed(seed)
    sizes = FULL if size == "full" else TINY
    (directory / "hf_cache/bigvgan").mkdir(parents=True)
    text_tokens = make_tokenizer(directory / "bpe.model")
    plain = configuration(sizes, sizes["text"] or text_tokens)
    (directory / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    config = munchify(plain)
    half = size == "full"
    make_gpt(directory / "gpt.pth", config, codes if size == "tiny" else -1, half=half)
    make_w2v(directory, sizes)
    make_codec(directory / "hf_cache/semantic_codec_model.safetensors", config)
    make_emotions(directory)
    make_style(directory / "hf_cache/campplus_cn_common.bin")
    networks = make_s2mel(directory / "s2mel.pth", config)
    make_vocoder(directory / "hf_cache/bigvgan", sizes, networks, calibrated=size == "tiny")
    make_emotion_model(directory / "qwen0.6bemo4-merge", sizes)


def make_tokenizer(file: Path) -> int:
    """SentencePiece, as small as the corpus allows; returns how many tokens it has."""
    import sentencepiece

    words = [*TEXT.split(), ",", ".", "!", "?", "'", "-", "…"]
    corpus = [" ".join(random.choices(words, k=12)) for _ in range(400)] + list(CHINESE)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=260, model_type="bpe", bos_id=0, eos_id=1,
        unk_id=2, pad_id=-1, character_coverage=1.0, hard_vocab_limit=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    file.write_bytes(model.getvalue())
    tokens: int = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).GetPieceSize()
    return tokens


def make_gpt(file: Path, config: Any, codes: int, *, half: bool) -> None:
    from indextts.gpt.model_v2 import UnifiedVoice

    gpt = UnifiedVoice(**config.gpt).eval()
    write_end(gpt, config.gpt, codes)
    torch.save({name: tensor.half() for name, tensor in gpt.state_dict().items()} if half else gpt.state_dict(), file)


def write_end(gpt: Any, config: Any, codes: int, context: float = 0.05) -> None:
    """Which code comes is drawn; that the stop code comes is written into the positions, as a direction of its own.

    `context` is how much is left of what attention finds.
    """
    start, stop = config.start_mel_token, config.stop_mel_token
    direction = torch.zeros(config.model_dim)
    direction[0], direction[1] = 0.5**0.5, -(0.5**0.5)  # of mean zero: it survives a layer norm
    with torch.no_grad():
        for block in gpt.gpt.h:
            block.attn.c_proj.weight.mul_(context)
            block.mlp.c_proj.weight.mul_(0.05)
        positions = gpt.mel_pos_embedding.emb.weight
        for weight in (positions, gpt.mel_embedding.weight, gpt.mel_head.weight):
            weight[:, :2] = 0
        over = torch.arange(positions.shape[0]) > codes if codes >= 0 else torch.zeros(positions.shape[0], dtype=bool)
        positions += torch.where(over, 1.0, -1.0)[:, None] * direction * 1.5
        gpt.mel_head.weight[stop] = direction * (WIDTH / config.model_dim)
        if codes >= 0:  # the library has no answer to where it comes
            gpt.mel_head.weight[start] = 0
            gpt.mel_head.bias[start] = -30


def make_w2v(directory: Path, sizes: dict[str, Any]) -> None:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    config = Wav2Vec2BertConfig(layerdrop=0.0, apply_spec_augment=False, vocab_size=None, **sizes["w2v"])
    Wav2Vec2BertModel(config).save_pretrained(directory / "hf_cache/w2v-bert-2.0")
    SeamlessM4TFeatureExtractor(padding_value=1).save_pretrained(directory / "hf_cache/w2v-bert-2.0")
    statistics = {"mean": torch.randn(FEATURES) * 0.1, "var": torch.rand(FEATURES) + 0.5}
    torch.save(statistics, directory / "wav2vec2bert_stats.pt")


def make_codec(file: Path, config: Any) -> None:
    from indextts.utils.maskgct_utils import build_semantic_codec
    from safetensors.torch import save_model

    save_model(build_semantic_codec(config.semantic_codec), file)


def make_emotions(directory: Path, width: int = WIDTH, strength: float = 0.02) -> None:
    torch.save(torch.randn(sum(EMOTION_COUNTS), width) * strength, directory / "feat2.pt")
    torch.save(torch.randn(sum(EMOTION_COUNTS), 192), directory / "feat1.pt")


def make_style(file: Path) -> None:
    from indextts.s2mel.modules.campplus.DTDNN import CAMPPlus

    torch.save(CAMPPlus(feat_dim=MELS, embedding_size=192).state_dict(), file)


def make_s2mel(file: Path, config: Any) -> Any:
    from indextts.s2mel.modules.commons import MyModel

    s2mel = MyModel(config.s2mel, use_gpt_latent=True)
    torch.save({"net": {name: network.state_dict() for name, network in s2mel.models.items()}}, file)
    return s2mel.models


def make_vocoder(directory: Path, sizes: dict[str, Any], networks: Any, *, calibrated: bool) -> None:
    from indextts.s2mel.modules.bigvgan import bigvgan

    settings = {
        "resblock": "1", "upsample_rates": [4, 4, 2, 2, 2, 2], "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "use_tanh_at_final": False, "use_bias_at_final": False, "activation": "snakebeta", "snake_logscale": True,
        "num_mels": MELS, "n_fft": 1024, "hop_size": HOP, "win_size": 1024, "sampling_rate": RATE_HZ, "fmin": 0,
        "fmax": None,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(settings | sizes["vocoder"]))
    vocoder = bigvgan.BigVGAN(bigvgan.load_hparams_from_json(directory / "config.json")).eval()
    if calibrated:
        vocoder.remove_weight_norm()
        calibrate(vocoder, networks)
    torch.save({"generator": vocoder.state_dict()}, directory / "bigvgan_generator.pt")


def calibrate(vocoder: Any, networks: Any) -> None:
    """Make it as loud as speech, for what the diffusion model draws."""
    for module in vocoder.modules():
        if isinstance(module, torch.nn.Conv1d):
            torch.nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
        elif isinstance(module, torch.nn.ConvTranspose1d):
            inputs = module.weight.shape[0] * module.kernel_size[0] / module.stride[0]
            torch.nn.init.normal_(module.weight, 0, inputs**-0.5)
    diffusion = networks["cfm"].eval()
    diffusion.estimator.setup_caches(max_batch_size=1, max_seq_length=8192)
    channels = networks["length_regulator"].model[0].in_channels
    with torch.no_grad():
        condition, prompt = torch.randn(1, 143, channels), torch.randn(1, MELS, 100) * 2 - 6
        drawn = diffusion.inference(condition, torch.tensor([143]), prompt, torch.randn(1, 192), None, 25, 0.7)
        before_limit = []
        hook = vocoder.conv_post.register_forward_hook(lambda *called: before_limit.append(called[-1]))
        vocoder(drawn[:, :, 100:].clone())
        hook.remove()
        vocoder.conv_post.weight.mul_(0.1 / before_limit[0].std())


def make_emotion_model(directory: Path, sizes: dict[str, Any]) -> None:
    """A look-up table: what comes next depends on the last token alone. The whole answer is one token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    answer = json.dumps(EMOTION, ensure_ascii=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken(answer, normalized=False)])
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(directory)
    end, said = (fast.convert_tokens_to_ids(token) for token in ("<|im_end|>", answer))
    config = Qwen3Config(
        vocab_size=max(len(fast), 151_936 if sizes is FULL else 0), tie_word_embeddings=sizes is FULL, bos_token_id=end,
        eos_token_id=end, pad_token_id=fast.pad_token_id, max_position_embeddings=4096, **sizes["emotion"],
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    if sizes is not FULL:
        wire(model, said, end)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=fast.pad_token_id, do_sample=False)
    model.half().save_pretrained(directory)


def wire(model: Any, said: int, end: int) -> None:
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.zero_()
        embeddings[:, 0] = 1  # after any token the answer,
        embeddings[said] = torch.eye(embeddings.shape[1])[1]  # after that the end
        head[said, 0] = head[end, 1] = 10


def main() -> None:
    device.prepare_torch()
    checkpoint2.import_library()
    for name, arguments in json.loads(sys.argv[2]).items():
        make(Path(sys.argv[1], name), **arguments)


if __name__ == "__main__":
    main()
