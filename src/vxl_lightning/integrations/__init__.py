"""Our models in other people's harnesses."""
