"""Signals for users' own extensions, sent with Scrapy's signal manager.

::

    crawler.signals.connect(self.solved, signal=scrapy_acecaptcha.signals.captcha_solved)

    def solved(self, request, result, spider): ...
"""

captcha_solved = object()
"""The site took an answer.

Sent with ``request`` (the spider's own Request), ``result`` (a
:class:`~scrapy_acecaptcha.CaptchaResult`) and ``spider``.
"""

captcha_failed = object()
"""A captcha was given up, before any retry of the request.

Sent with ``request`` (the spider's own Request), ``error`` (an
:class:`~scrapy_acecaptcha.errors.AceCaptchaError`) and ``spider``.
"""
