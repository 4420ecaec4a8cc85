"""Weights made by others: names on the hub, transformers folders, packaged models."""
