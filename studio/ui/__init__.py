"""The page. Imports gradio; knows the engine by what it leaves on disk."""
