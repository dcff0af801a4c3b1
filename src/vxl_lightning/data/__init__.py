"""From video files and annotations to batches: schema, decoding, shards, exact resume, synthesis."""
