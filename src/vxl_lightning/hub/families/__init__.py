"""One family of models a file; a file's ``FAMILY`` serves every ``model_type`` it names."""
