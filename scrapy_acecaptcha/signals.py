"""Signals for users' own extensions, sent with Scrapy's signal manager.

::

    crawler.signals.connect(self.solved, signal=scrapy_acecaptcha.signals.captcha_solved)

    def solved(self, request, result, spider): ...   # result: CaptchaResult
    def failed(self, request, error, spider): ...    # error: an AceCaptchaError
"""

captcha_solved = object()
captcha_failed = object()
