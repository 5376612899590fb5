"""Runtime: numpy, onnxruntime and tokenizers only; never torch."""
