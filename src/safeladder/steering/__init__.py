"""Inference-time interventions: they change what a trained model says without changing its weights.

`steps` splits reasoning; value guidance picks among sampled steps, edits correct them, directions shift hidden states.
"""
