"""Devices over TVM RPC: the tracker, sessions with a device, kernels timed there."""
