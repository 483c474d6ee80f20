"""The decoder, its heads, its sharding, and Hugging Face directories in and out."""
