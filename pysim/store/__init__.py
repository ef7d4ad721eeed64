"""Where finished work is kept, and the key it is found by. No torch."""

from pysim.store.keys import cache_folder, content_key, data_identity, file_digest, source_digest

__all__ = ["cache_folder", "content_key", "data_identity", "file_digest", "source_digest"]
