"""The server: one ASGI application over models of every task, in the dialects of existing clients.

A request goes one way: app (HTTP) -> a dialect (bodies) -> models (names, options) -> gather (batches) -> the engine.
Nothing else of this package imports it but the command line.
"""
