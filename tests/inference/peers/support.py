"""Small models with random weights of the real architectures, saved as their authors save them."""

import json
from importlib import resources
from pathlib import Path

import onnx.parser
import pytest
import torch

from ramctl.inference.peers import onnx_folder

LABELS = ["dog", "living room", "red", "traffic light", "umbrella"]
SIGNS = list("abcdefghijklmnopqrstuvwxyz.,-")
LAYERS = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
TEXT = LAYERS | {"hidden_size": 32, "max_position_embeddings": 77}
VISION = LAYERS | {"image_size": 32, "patch_size": 16}
SETTINGS = {
    "size": 4, "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.25],
    "output": "logits",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A name that is not here must fail, not be looked for elsewhere."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def clip_tokenizer():
    """CLIP's tokenizer with a byte-pair vocabulary learnt from a few of its prompts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    from ramctl.checkpoints.clip import label_prompts

    pieces = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, end_of_word_suffix="</w>", initial_alphabet=SIGNS, show_progress=False
    )
    texts = [text for label in LABELS for text in label_prompts(label)]
    pieces.train_from_iterator([*texts, *(f"{sign} {sign}{sign}" for sign in SIGNS)], trainer)
    learnt = json.loads(pieces.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learnt["merges"]])


def randomise(model: torch.nn.Module, *, seed: int = 0, scale: float = 1.0) -> torch.nn.Module:
    """Weights large enough that photos and texts get clearly different outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, scale / fan_in**0.5, generator=generator)
            elif "norm" not in name.lower() and tensor.dim() == 1:
                tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def clip_text_config(tokenizer, width: int) -> dict[str, int]:
    """The settings of a CLIP's text half whose vectors have that width."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    return TEXT | ends | {"vocab_size": len(tokenizer), "projection_dim": width}


def save_clip(folder: Path, tokenizer, width: int = 24) -> Path:
    """Write a CLIP of a few thousand random weights, as its authors do."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    config = CLIPConfig(
        text_config=clip_text_config(tokenizer, width),
        vision_config=VISION | {"projection_dim": width}, projection_dim=width,
    )  # fmt: skip
    randomise(CLIPModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def save_clip_text(folder: Path, tokenizer, width: int = 24) -> Path:
    """Write only the text half, as small hub repositories hold it."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(**clip_text_config(tokenizer, width))
    randomise(CLIPTextModelWithProjection(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small_swin(*stages: int):
    """The settings of a small Swin that gives those stages."""
    from transformers import SwinConfig

    return SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=[f"stage{stage}" for stage in stages],
    )  # fmt: skip


def bert_base_tokenizer():
    """bert-base-uncased's tokenizer: Grounding DINO tells phrases apart by its token ids."""
    from transformers import BertTokenizer

    words = resources.files("ramctl.model").joinpath("bert_uncased.txt").read_text("utf-8")
    vocabulary = {word: number for number, word in enumerate(words.splitlines())}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


def save_port(folder: Path, bert_tokenizer) -> Path:
    """Write a small Grounding DINO of the transformers library."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=small_swin(2, 3, 4),
        text_config=transformers.BertConfig(vocab_size=len(bert_tokenizer), **LAYERS),
        num_queries=20, d_model=64, encoder_layers=1, encoder_ffn_dim=64, encoder_attention_heads=4,
        decoder_layers=2, decoder_ffn_dim=64, decoder_attention_heads=4,
    )  # fmt: skip
    _spread(transformers.GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    bert_tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    transformers.GroundingDinoImageProcessor(size=size).save_pretrained(folder)
    return folder


def _spread(model):
    """Tokens and boxes that differ clearly, probabilities away from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "bbox_embed" in name or "tgt_embed" in name or "query_position" in name:
                tensor.normal_(0, 0.3, generator=generator)
            if name.endswith(("decoder.layer_norm.weight", "decoder.norm.weight")):
                tensor.fill_(0.1)
    return model.eval()


def channel_graph(axes="2, 3", shape="3, 4, 4", weights="") -> onnx.ModelProto:
    """An ONNX graph as other projects have them. Logits: the mean of each channel, times one."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    means (float[B, {shape}] pixels) => (float[B, 3] logits) <float[3] one = {{1, 1, 1}}> {{
        mean = ReduceMean<axes=[{axes}], keepdims=0>(pixels)
        logits = Mul(mean, one)
    }}""")
    if weights:
        (one,) = model.graph.initializer
        one.ClearField("float_data")
        one.data_location = onnx.TensorProto.EXTERNAL
        one.external_data.add(key="location", value=weights)
    return model


def write_folder(path: Path) -> Path:
    """A folder for `--model onnx:FOLDER`, whose labels are the channels."""
    path.mkdir()
    onnx.save(channel_graph(), path / onnx_folder.GRAPH)
    (path / onnx_folder.LABELS).write_text("red\ngreen\nblue\n")
    (path / onnx_folder.PREPROCESS).write_text(json.dumps(SETTINGS))
    return path
