"""The spiders; none of them knows that there are captchas."""
