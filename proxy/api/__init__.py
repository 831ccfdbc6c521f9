"""The contract between data plane, control plane and stack: messages, names, labels. No I/O, importable by every
layer."""
