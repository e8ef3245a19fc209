"""What a model learns from: any rows understood as pairs, examined, edited."""
