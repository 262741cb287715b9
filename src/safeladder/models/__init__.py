"""Policies: real Hugging Face checkpoints, their processors, and the laptop-sized models of the same classes.

Import from the modules (`families`, `tokenizer`, `processing`, `processors`, `pixels`, `tiny`, `load`,
`lora`, `policy`); this file imports nothing: naming the package costs nothing where torch is not wanted.
"""
