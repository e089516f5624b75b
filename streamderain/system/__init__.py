"""The machine: processes, files, GPUs, resource usage, installation commands."""
