"""A Scrapy project, and the captcha-protected sites that it crawls."""
