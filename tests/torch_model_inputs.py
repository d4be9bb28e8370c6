"""What the models of `torch_models` are compiled with: `--input`, by the name of the function.

A batch that varies, and a sequence or an image that varies where the architecture allows it.
"""

INPUTS = {
    "resnet": ("pixel_values=1..4x3x32..96@64x32..96@64",),
    "mobilenet_v2": ("pixel_values=1..4x3x64x64",),
    "convnext": ("pixel_values=1..4x3x64x64",),
    "vit": ("pixel_values=1..4x3x32x32",),
    "swin": ("pixel_values=1..4x3x32x32",),
    "bert": ("input_ids=1..4x1..40@16:int64", "attention_mask=1..4x1..40@16:int64"),
    "distilbert": ("input_ids=1..4x1..40@16:int64", "attention_mask=1..4x1..40@16:int64"),
    "gpt2": ("input_ids=1..4x1..40@16:int64",),
    "gpt2_with_cache": ("input_ids=1..4x1..40@16:int64",),
    "whisper_encoder": ("input_features=1..4x20x64",),
    "t5_encoder": ("input_ids=1..4x1..40@16:int64",),
    "segformer": ("pixel_values=1..4x3x64x64",),
    "detr": ("pixel_values=1..4x3x64x64",),
}
