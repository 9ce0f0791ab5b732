"""Find a page's captcha without a selector; private."""
