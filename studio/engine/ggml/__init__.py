"""A model in the words of llama.cpp: its shape, its tensors, its vocabulary, as a GGUF file holds them."""
