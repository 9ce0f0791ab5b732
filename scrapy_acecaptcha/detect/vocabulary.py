"""The words in which pages speak of captchas, for pages that no rule describes."""

# ruff: noqa: RUF001 - letters of other alphabets are meant here

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple


class Match(NamedTuple):
    """Words that speak for a captcha.

    :param kind: what kind of words: the key of their weight in scoring.WEIGHTS
    :param words: what was read
    """

    kind: str
    words: str

    @property
    def is_sure(self) -> bool:
        """Whether hardly anything but a captcha is called so."""
        return self.kind in ("sure name", "likely name")


_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
_EXTENSION = re.compile(r"\.[A-Za-z]{2,5}\d?$")


def spelled(identifier: str) -> str:
    """Spell a name as words: `imgCaptcha_02` as `img captcha 02`."""
    return " ".join(re.findall(r"[^\W_]+", _ENDS.sub(" ", identifier))).lower()


def spelled_apart(names: Iterable[str]) -> str:
    """Names as words, with a bar between them, so that no two are read as one."""
    return " | ".join(filter(None, map(spelled, names)))


def path_words(path: str) -> list[str]:
    """The segments of an address's path or query, each as words.

    Without the file's extension, and without tokens that look random: they are no words.
    """
    segments = re.split(r"[/?&;]", path)
    return [_chosen(_EXTENSION.sub("", segment)) for segment in segments if segment]


def _chosen(segment: str) -> str:
    tokens = re.findall(r"[^\W_]+", segment)
    return spelled(" ".join(token for token in tokens if not looks_random(token)))


def looks_random(token: str) -> bool:
    """Whether nobody would have chosen *token* as a name: `3f9a0c21`, `xQrT9k`."""
    parts = _ENDS.split(token)
    if len(parts) > 2 and len(token) < 3 * len(parts):
        return True
    has_digit = any(map(str.isdigit, token))
    return len(token) > 24 or (has_digit and len(token) > 5 and not token.strip("0123456789abcdef"))


# Widgets that are no text captchas, though their names say so.
WIDGETS = {
    "reCAPTCHA": r"recaptcha",
    "hCaptcha": r"\bh-?captcha",
    "Turnstile": r"turnstile|challenges\.cloudflare\.com",
    "GeeTest": r"geetest",
    "Arkose FunCaptcha": r"funcaptcha|arkoselabs",
    "FriendlyCaptcha": r"frc-captcha|friendly-?captcha",
    "Yandex SmartCaptcha": r"smart-?captcha",
    "Tencent Captcha": r"tencentcaptcha|captcha\.qq\.com|\btcaptcha",
    "Aliyun Captcha": r"aliyuncaptcha|nc-container|awsc\.js",
    "NetEase Yidun": r"yidun|dun\.163",
    "AWS WAF": r"awswaf|aws-?waf-?captcha",
    "DataDome": r"captcha-delivery\.com",
    "KeyCAPTCHA": r"keycaptcha",
    "mCaptcha": r"\bmcaptcha",
    "ALTCHA": r"\baltcha",
    "a slider": r"slider?-?(?:captcha|verify)|(?:captcha|verify)-?slide",
}
_WIDGET = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in WIDGETS.items()}
# One of these is in every text that the patterns above match; looking for them is faster.
_OF_WIDGETS = (
    *("captcha", "altcha", "turnstile", "cloudflare", "geetest", "arkose", "yidun", "dun.163"),
    *("nc-container", "awsc.js", "awswaf", "aws-waf", "slide"),
)


def widget(said: str) -> str | None:
    """The widget that an element is part of which says *said*; None for elements of none."""
    low = said.casefold()
    if not any(word in low for word in _OF_WIDGETS):
        return None
    return next((name for name, pattern in _WIDGET.items() if pattern.search(said)), None)


# Names of images, as spelled() gives them.
_PICTURE = r"(?:img|image|pic|picture|gif|jpe?g|png|photo|resm|resim|bild|imagen|imagem|immagine)"
_THING = rf"(?:code|kod\w{{0,4}}|num(?:ber)?s?\b|no\b|{_PICTURE}\b)"
_SURE_NAME = re.compile(
    r"(?:kap|k?ca[pt]{1,2})t?cha|\byzm|\byan ?zheng|sec ?code|\bver ?code|\bturing|"
    r"\bv ?code|free ?cap\b|(?:verif\w{0,10}|valid\w{0,8}|confirm\w{0,8}|secur\w{0,6}) ?code|"
    r"\b(?:check|auth|rand(?:om)?|rnd|img|image|pic) ?code"
)
_LIKELY_NAME = re.compile(
    rf"(?:verif\w{{0,10}}|valid\w{{0,8}}|confirm\w{{0,8}}|secur\w{{0,6}}|secret|guvenlik|dogrulama|"
    rf"sicherheits?|spam) ?{_THING}|"
    rf"\b(?:check|auth(?:en\w{{0,10}})?|rand(?:om)?|rnd|ident\w{{0,10}}) ?{_THING}|"
    rf"\b{_PICTURE} ?(?:code|verif\w{{0,10}}|valid\w{{0,8}}|check|confirm|rand)|"
    rf"\bcode ?(?:{_PICTURE}|num)|mode confirm|anti ?(?:spam|bot|robot)|visual ?(?:conf|verif)|"
    r"human ?(?:verify|check)|\b(?:image|img) ?reg\b|num ?gen\b|jpeg image|sticky ?img|"
    r"\bsec ?(?:img|image|pic)"
)
_HINT_NAME = re.compile(
    r"verif|confirm|valid|\bcode\b|\bi ?code\b|\brand|\bauth\b|\bcheck|secur|spam|robot|guvenlik|"
    r"dogrulama|codigo|codice|challenge"
)
# Names of other images. The second row counts even where the name says captcha: what stands
# around a captcha, and pictures of captchas in articles.
_OTHER_NAME = re.compile(
    r"\b(?:logos?|brand|banner\w*|head(?:er)?|kopf|cabecera|avatars?|gravatar|user ?pic|qr|qrcode|"
    r"ewm|erweima|weixin|wechat|bar ?code|(?:site|road|street)?maps?|charts?|graph|grafi\w*|"
    r"(?<!img )thumb\w*|products?|flags?|icons?|ico|smil\w*|emoji|sprite|arrow|btn|bg|background|"
    r"pixel|spacer|counter|hit|watch|track\w*|rating|stars?|ads?|advert\w*|pub|web ?cam|cam|live|"
    r"cvv|card|photo|foto|seal|emblem|wappen|escudo|brasao|crest|stemma|search|lup[ae]|preview|cover|"
    r"poster|profile)\b"
)
_AROUND_NAME = re.compile(
    r"\b(?:refresh\w*|re ?load\w*|renew|audio|sound|speaker|play|listen|loading|progress|spinner|"
    r"icons?|help|logo|(?:captcha)?samples?|examples?|beispiel|ejemplo|exemplo|demo|screenshots?|"
    r"close|hint|qr|feather)\b"
)
_RELOAD_NAME = re.compile(r"\b(?:refresh\w*|re ?load\w*|renew)\b")
_LOADING_NAME = re.compile(r"\b(?:loading|loader|spinner|spin|preloader|skeleton|el loading)\b")
# Words that an image and a field may share without having to do with each other.
_COMMON_WORDS = re.compile(
    r"images?|img|pic|picture|photo|files?|upload|index|page|main|form|login|users?|name|account|"
    r"register|search|query|code|get|show|view|new|edit|default|home|test|item|list|data|text|value|"
    r"title|logo|avatar|input|field|url|src|type|\d+|\w\w?"
)


@lru_cache(maxsize=4096)
def names_captcha(names: str) -> Match | None:
    """Whether the names of an image (spelled) are those of a captcha."""
    if sure := _SURE_NAME.search(names):
        return Match("sure name", sure[0])
    if likely := _LIKELY_NAME.search(names):
        return Match("likely name", likely[0])
    hint = _HINT_NAME.search(names)
    return Match("hint of a name", hint[0]) if hint else None


def names_another(names: str, *, sure: bool) -> str | None:
    """What else an image is that has these names (spelled).

    :param sure: they say captcha, too
    """
    found = (_AROUND_NAME if sure else _OTHER_NAME).search(names) or _AROUND_NAME.search(names)
    return found[0] if found else None


def without_reload(names: str) -> str:
    """*names* (spelled) without what they say of reloading."""
    return _RELOAD_NAME.sub("", names)


def names_loading(names: str) -> str | None:
    """What in these names (spelled) says that something is being loaded."""
    found = _LOADING_NAME.search(names)
    return found[0] if found else None


def is_common_word(word: str) -> bool:
    """Whether *word* says nothing when an image and a field share it."""
    return _COMMON_WORDS.fullmatch(word) is not None


def _any_of(words: str) -> str:
    """One of these words; those with a word's boundary before them apart, which is faster."""
    bounded = [word[2:] for word in words.split() if word.startswith(r"\b")]
    others = [word for word in words.split() if not word.startswith(r"\b")]
    return f"(?:\\b(?:{'|'.join(bounded)})|{'|'.join(others)})"


# Texts. A line has the words of English, Spanish and Portuguese, French, German, Italian,
# Russian, Turkish, Hindi, Chinese.
_THINGS = _any_of(
    r"""\bcharacters? \bletters \bdigits? \bnumbers? \bcode \btext \bwords? \bsymbols
    \bcaracteres \bletras \bc[óo]digo \btexto \bn[úu]meros? \bd[íi]gitos \bcifras \bpalavras?
    \bcaract[èe]res \blettres \btexte \bchiffres \bmot\b
    zeichen\b buchstaben ziffern \bwort\b zahlen?\b
    \bcaratteri \blettere \bcodice \btesto \bcifre \bnumeri \bparola
    символ букв цифр \bкод слов[оа] \bтекст \bчисл
    karakter harf \bkod rakam \bsayı \byazı
    अक्षर कोड अंक संख्या शब्द पाठ
    字符 字母 数字 數字 字元 文字 验证码 驗證碼 内容 內容 结果 算式"""
)
_IMAGES = _any_of(
    r"""\bimages? \bpicture \bgraphic
    \bimagen \bimagem \bfigura \bgr[áa]fico
    \bl['’]image \bbild \bgrafik abbildung
    \bimmagine картинк изображени рисунк
    \bresim \bgörsel \bgörüntü \bresmi
    चित्र छवि इमेज
    图 圖"""
)
_SHOWN = _any_of(
    r"""\bshown \bdisplayed \byou\ssee \byou\scan\ssee \bsee\s(?:below|above) \babove \bopposite
    \bat\s(?:the\s)?(?:left|right) \b(?:characters|letters|text|numbers)\sbelow \bappears?
    \bmuestran? \bmostrad \bve\sen \bves\b \baparecen?
    \bexibid \bapresentad \bacima \bao\slado
    \baffich ci-dessus ci-dessous ci-contre \bvoyez
    \bangezeigt \bdargestellt \babgebildet \bsehen nebenstehend
    \bvisualizzat \bmostrat \bvedi
    \bвид(?:ите|но) изобра показан указанн\w*\s(?:на|справа|слева)
    gördüğünüz görünen gösterilen
    दिखाए दिखाई दिए\sगए
    右侧 右側 左侧 左側 右边 右邊 所示 看到 显示 顯示"""
)
_VERBS = _any_of(
    r"""\btype \benter \bwrite \bcopy \brepeat \bingres \bescrib \bintrodu \bteclee \binsira
    \bdigit[ea] \bpreencha \bsaisi \brecopi \bentre[rz] \bgeben \beingeben \btragen \binseri
    \bdigita \bввод \bввест \bвведите \bнабер giriniz \bgirin \byazın दर्ज \bभरें
    输入 輸入 填写 填寫"""
)
_LETTERS = _any_of(
    r"""\bcharacters \bletters \bsymbols \bcaracteres \bletras \bcaract[èe]res \blettres \bzeichen
    \bbuchstaben \bcaratteri \blettere символ букв karakter \bharf अक्षर 字符 字母 字元"""
)
_PHRASES = {
    "text: read an image": ((_THINGS, 60, _IMAGES), (_IMAGES, 60, _THINGS)),
    "text: what is shown": ((_THINGS, 50, _SHOWN), (_SHOWN, 50, _THINGS)),
    "text: enter letters": ((_VERBS, 25, _LETTERS), (_LETTERS, 40, _VERBS)),
}
# For each kind: the words that it cannot do without, and the whole.
_PHRASE = {
    kind: (
        re.compile(pairs[0][2]),
        re.compile("|".join(f"{a}[^.!?]{{0,{gap}}}{b}" for a, gap, b in pairs)),
    )
    for kind, pairs in _PHRASES.items()
}
_SURE_TEXT = re.compile(
    r"k?captcha|capcha|капч|कैप्चा|验证码|驗證碼|校验码|检验码|檢核碼|检核码|认证码|認證碼|附加码|随机码|"
    r"验证字符|图形码|圖形碼|識別碼|识别码"
)
_LIKELY_TEXT = re.compile(
    r"\b(?:security|verification|confirmation|image|visual|validation|access|anti-?spam|control|"
    r"random|turing|spam)[ -](?:code|check|number|image|text|word|control|protection)|"
    r"not a robot|are you (?:a )?human|unusual (?:traffic|activity)|no eres un robot|sou um rob|"
    r"c[óo]digo de (?:seguridad|seguran[çc]a|verificaci[óo]n|verifica[çc][ãa]o|control|valida)|"
    r"code de (?:s[ée]curit[ée]|v[ée]rification|confirmation|contr[ôo]le)|anti-?rob[ôo]t?s?\b|"
    r"sicherheits(?:code|abfrage|pr[üu]fung|zeichen)|pr[üu]fcode|best[äa]tigungscode|spam-?schutz|"
    r"codice di (?:sicurezza|controllo|verifica)|(?:проверочн|защитн|контрольн)\w* (?:код|числ)|"
    r"код (?:подтверждения|проверки|безопасности)|защита от|g[üu]venlik kod|do[ğg]rulama kod|"
    r"सुरक्षा (?:कोड|छवि)|सत्यापन कोड"
)
# Codes that come by another way than an image, and other fields that are called code.
_OTHER_TEXT = re.compile(
    r"短信\w*码|手机\w*码|手機\w*碼|簡訊\w*碼|邮箱\w*码|郵[箱件]\w*碼|动态码|動態碼|语音验证码|防伪码|邀请码|"
    r"(?:sms|text message|phone|e-?mail|mobile|otp|2fa|mfa|totp)[-_ ]?(?:verif\w*)?[-_ ]?code|"
    r"(?:verif\w* )?codes? (?:sent|from|by|in) [^|]{0,30}(?:sms|mail|phone|app|message)|"
    r"c[óo]digo (?:postal|de barras|promocional|do pa[íi]s|de pa[íi]s)|code (?:postal|promo)|"
    r"codice (?:fiscale|postale|avviamento)|почтов\w* индекс|трек-?код|posta kodu|पिन ?कोड|"
    r"(?:aktions|gutschein|rabatt)code|\botp\b|ओटीपी|(?:access|class|invite|invitation|referral|"
    r"activation|membership|voucher|promo)[-_ ]codes?|\bcsv\b",
    re.IGNORECASE,
)
_OF_CODES = ("cod", "cód", "otp", "csv", "kod", "码", "碼", "индекс", "трек", "कोड", "ओटीपी")
_SENT = re.compile(
    r"\b(?:was|been|have|has|we|just) sent\b|we(?:'ve| have)? (?:just )?(?:e-?mailed|texted)|"
    r"\bsent (?:to|by|you)\b|by sms|\benviado|\benviamos|\benviad[oa] (?:a|por|para)|"
    r"envoy[ée]|reçu par|gesendet|zugesandt|geschickt|inviat[oa]|ricevut[oa]|отправлен|"
    r"отправили|выслан|из смс|gönderilen|gönderdik|भेजा|भेजे|已发送|已發送|发送至|發送至|"
    r"authenticator|two-?factor|\bscan\b|scannez|escanea|扫一扫|扫描|掃描|扫码|"
    r"back of (?:your|the)|impress[oa]|printed on|on your (?:card|phone|device|document)|"
    r"margen|barcode|gallery|key sheet"
)
_SEARCH = re.compile(
    r"\b(?:q|s|wd|kw|search\w*|keywords?|srch\w*|query|buscar?|busca|pesquis\w*|recherche|suche?|"
    r"cerca|ricerca|поиск|ara)\b|搜索|查找|关键字"
)
_SETTING = re.compile(
    r"\b(?:width|height|length|len|size|count|min|max|font|limit|ttl|time\w*|expir\w*|level|noise|"
    r"color|attempts|tries|lines|dots|quality|enabled?)\b"
)
_REFRESH_TEXT = re.compile(
    r"refresh|reload|re-?generate|(?:another|new|different|other|change|change the|change this) "
    r"(?:image|picture|code|captcha|one)|(?:can.?t|cannot|unable to) (?:read|see)|otra imagen|"
    r"recargar|refrescar|cambiar|actualizar|otro c[óo]digo|nuev[oa] (?:imagen|c[óo]digo)|"
    r"trocar|atualizar|outra imagem|nov[oa] (?:c[óo]digo|imagem)|recarregar|обнов|друг\w+ картинк|"
    r"друг\w+ (?:изображ|код)|сменить|neues bild|neu(?:es|er)? (?:laden|code)|anderes bild|"
    r"nicht lesen|(?:autre|nouvelle) image|actualiser|rafra[iî]chir|nouveau|changer|"
    r"(?:altra|cambia|nuova) immagine|aggiorna|ricarica|nuovo codice|yenile|değiştir|नया|रीफ्रेश|बदलें|"
    r"看不清|看不見|看不见|换一|換一|刷新|更换|更換|重新产生|重新產生|重新整理|换张|下一张"
)
_REFRESH_CODE = re.compile(
    r"\.src\s*\+?=|refresh|reload|regenerat|random|gettime|change|chg|draw|update\w*code|new\w*image|"
    r"new\w*code|recarg|refresc|atualiz|yenile|get\w*code|cambia",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def without_other_codes(text: str) -> str:
    """*text* without what it says of codes that are read elsewhere than in an image."""
    low = text.casefold()
    if not any(word in low for word in _OF_CODES):
        return text
    return _OTHER_TEXT.sub(" ", text)


@lru_cache(maxsize=2048)
def asks_to_read(text: str) -> Match | None:
    """Whether *text* asks for what is written on an image, or at least speaks of such a code."""
    text = without_other_codes(text).casefold()
    for kind, (needed, phrase) in _PHRASE.items():
        if needed.search(text) and (found := phrase.search(text)):
            return Match(kind, found[0])
    if found := _SURE_TEXT.search(text):
        return Match("text: captcha", found[0])
    found = _LIKELY_TEXT.search(text)
    return Match("text: security code", found[0]) if found else None


def was_sent(text: str) -> str | None:
    """What *text* says of a code that comes by SMS, e-mail, an app or on paper."""
    found = _SENT.search(text.casefold())
    return found[0] if found else None


def is_search(said: str) -> bool:
    """Whether a field that says *said* of itself is a search box."""
    return bool(_SEARCH.search(spelled(said)))


def is_setting(name: str) -> bool:
    """Whether a field called *name* sets how captchas look: `captcha_width`."""
    return bool(_SETTING.search(spelled(name)))


def offers_another(text: str) -> str | None:
    """What *text* (of a link or a button) says of getting another image."""
    found = _REFRESH_TEXT.search(text.casefold())
    return found[0] if found else None


def loads_another(script: str) -> bool:
    """Whether an onclick handler seems to load another image."""
    return bool(_REFRESH_CODE.search(script))


# Buttons. What closes, resets, leads elsewhere or sends a code by another way sends no answer.
_NO_SENDING = re.compile(
    r"(?<!pwd )(?<!password )\breset\b(?! (?:\w+ )?(?:pass|pwd))|"
    r"\b(?:close|dismiss|cancel\w*|clear|back|previous|refresh\w*|re ?load\w*|renew|"
    r"audio|play|speak\w*|listen|sound|toggler?|navbar|menu|dropdown|forgot\w*|lost|recover|help|eye|show|"
    r"upload|browse|preview|remove|delete|another|search\w*|subscribe|newsletter)\b|"
    r"^(?:.*\|\s*)?[×x✕✖✗](?:\s*\||$)|send ?(?:sms|code|msg)|sms ?code|get ?code|"
    r"cerrar|cancelar|limpiar|borrar|olvid\w+|volver|fechar|limpar|esquec\w+|voltar|fermer|annuler|"
    r"effacer|oubli[ée]|retour|schlie[ßs]+en|abbrechen|zur[üu]cks?\w*|vergessen|chiudi|annulla|"
    r"dimenticat|indietro|закрыть|отмена|очистить|забыли|назад|kapat|iptal|temizle|unuttum|geri|"
    r"关闭|關閉|取消|重置|清空|返回|忘记|忘記|换一|換一|刷新|看不清|发送|發送|获取|獲取|浏览|上传|搜索",
    re.IGNORECASE,
)
_SENDING = re.compile(
    r"\b(?:log ?in|sign ?(?:in|up)|submit|send|search|query|check|verify|continue|confirm|ok|go|"
    r"register|save|post|next|enter|entrar|enviar|consultar|buscar|ingresar|aceptar|pesquisar|"
    r"continuar|valider|envoyer|connexion|rechercher|absenden|anmelden|weiter|suchen|invia|accedi|"
    r"cerca|gönder|giriş|sorgula|ara|tamam)\b|войти|отправить|найти|поиск|вход|"
    r"登录|登錄|登入|登陆|提交|查询|查詢|确定|確定|确认|注册|送出",
    re.IGNORECASE,
)


def does_not_send(said: str) -> bool:
    """Whether a button that says *said* does something else than to send its form."""
    return bool(_NO_SENDING.search(said))


def sends(said: str) -> bool:
    """Whether a link or picture that says *said* sends a form."""
    return bool(_SENDING.search(said))
