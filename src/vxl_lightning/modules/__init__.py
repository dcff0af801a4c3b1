"""Thin LightningModules over the models, with optimisers and schedules beside them."""
