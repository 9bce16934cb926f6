"""The local durable buffer that takes over when the store is away."""
