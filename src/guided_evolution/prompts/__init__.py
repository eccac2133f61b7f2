"""The packaged prompt texts, one Markdown file each, and the book that finds and fills them."""
