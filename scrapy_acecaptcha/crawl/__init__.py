"""The Scrapy front end: middleware, gate, challenge, inner requests; private."""
