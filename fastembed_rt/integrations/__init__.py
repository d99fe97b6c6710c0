"""Classes of other frameworks over our models: one module a framework, which imports that framework alone."""
