"""The report of a stage-3 run: content, figures, HTML and Markdown, model card."""
