"""What a person sees of a collection or a view: text, HTML, maps."""
