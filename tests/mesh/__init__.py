"""Real proxies, kernels and peers on one machine; no cluster."""
