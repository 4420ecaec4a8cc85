"""A vision-language model of another project with few, random weights, which learns two photos."""

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
PAD, BOS, EOS, _, IMAGE = range(5)
TEMPLATE = """\
{% for message in messages %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"""
SIDE, PATCH = 16, 8  # pixels


def _processor() -> LlavaProcessor:
    letters = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({word: n for n, word in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", additional_special_tokens=["<image>"],
    )  # fmt: skip
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        chat_template=TEMPLATE, num_additional_image_tokens=1,
    )  # fmt: skip


def write_model(folder: Path, prompt: str, captions: Mapping[str, str]) -> None:
    """Write a model that answers the prompt with a caption for photos of each colour."""
    torch.manual_seed(0)
    processor = _processor()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(processor.tokenizer), bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    )
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, PAD
    examples = []
    for colour, caption in captions.items():
        photo = {"type": "image", "image": Image.new("RGB", (64, 48), colour)}
        given = processor.apply_chat_template(
            [{"role": "user", "content": [photo, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        answer = processor.tokenizer(f"{caption}</s>", return_tensors="pt")["input_ids"]
        tokens = torch.cat([given["input_ids"], answer], 1)
        labels = torch.where(
            torch.arange(tokens.shape[1]) < given["input_ids"].shape[1], -100, tokens
        )
        examples.append(
            {"input_ids": tokens, "labels": labels, "pixel_values": given["pixel_values"],
             "attention_mask": torch.ones_like(tokens)}
        )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(200):
        loss = sum(model(**example).loss for example in examples)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.05:
            break
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
