"""A web studio for preference fine-tuning with ORPO."""
