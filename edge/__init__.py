"""From a checkpoint to a bundle: graphs, parity, quantization, TensorRT, latency."""
