"""ASK, the Agentic State Kernel (layer 6).

Contracts, tribes, permissions and the audit log that anyone can verify offline will live here.
"""
