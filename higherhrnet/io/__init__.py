"""Files: images, atomic writes, downloads, YAML."""
