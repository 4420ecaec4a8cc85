"""Small Grounding DINOs with random weights of the real architecture."""

from importlib import resources
from pathlib import Path

import torch

from tests.peers.support import small_swin

BERT = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def spread(model):
    """Tokens and boxes that differ clearly, probabilities away from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "bbox_embed" in name or "tgt_embed" in name or "query_position" in name:
                tensor.normal_(0, 0.3, generator=generator)
            if name.endswith(("decoder.layer_norm.weight", "decoder.norm.weight")):
                tensor.fill_(0.1)
    return model.eval()


def bert_base_tokenizer():
    """bert-base-uncased's tokenizer: the model tells phrases apart by its token ids."""
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
        text_config=transformers.BertConfig(vocab_size=len(bert_tokenizer), **BERT),
        num_queries=20, d_model=64, encoder_layers=1, encoder_ffn_dim=64, encoder_attention_heads=4,
        decoder_layers=2, decoder_ffn_dim=64, decoder_attention_heads=4,
    )  # fmt: skip
    spread(transformers.GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    bert_tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    transformers.GroundingDinoImageProcessor(size=size).save_pretrained(folder)
    return folder
