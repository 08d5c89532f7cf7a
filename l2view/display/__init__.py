"""Text, HTML, maps and plots."""
