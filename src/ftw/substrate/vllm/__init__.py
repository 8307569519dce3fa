"""The same taps, edits and proofs inside vLLM will live here (extra `vllm`)."""
