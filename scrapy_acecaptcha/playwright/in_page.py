"""What the Playwright front end asks of pages, in the pages' own language.

Each is a function for Locator.evaluate_all(): it sees all elements that a selector matches, none
included, and answers at once.
"""

from __future__ import annotations

_SHOWN = """
const shown = element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && getComputedStyle(element).visibility === "visible";
};
"""

# A few words for an element in messages. Not by a clone of it, which would load its image again.
_NAME = """
const nameOf = element => {
    const given = [...element.attributes].map(({ name, value }) => ` ${name}="${value}"`).join("");
    const tag = `<${element.localName}${given}`;
    return tag.length > 120 ? `${tag.slice(0, 117)}...>` : `${tag}>`;
};
"""

ANY_SHOWN = f"elements => {{ {_SHOWN} return elements.some(shown); }}"

SHOWN_NAMES = f"elements => {{ {_SHOWN} {_NAME} return elements.filter(shown).map(nameOf); }}"

# How the captcha looks just now. `origin` names the document: it is when its loading began, by the
# browser's clock. `print` changes with the image. An image is made of parts where the selector
# names the box around it.
LOOK = f"""elements => {{
    {_SHOWN}
    {_NAME}
    const address = url => new URL(url, document.baseURI).href;
    const isLoaded = url => {{
        if (!/^https?:/.test(url)) return true;
        const loads = performance.getEntriesByName(url).filter(load => load.responseEnd > 0);
        if (loads.length) return loads.some(load => !(load.responseStatus >= 400));
        // Browsers stop noting loads at 250.
        return document.readyState === "complete" && performance.getEntries().length >= 250;
    }};
    const isDrawn = canvas => {{
        const copy = document.createElement("canvas");
        [copy.width, copy.height] = [canvas.width, canvas.height];
        const context = copy.getContext("2d");
        try {{
            context.drawImage(canvas, 0, 0);
            const {{ data }} = context.getImageData(0, 0, copy.width, copy.height);
            const pixels = new Uint32Array(data.buffer);
            return pixels.some(pixel => pixel !== pixels[0]);
        }} catch (error) {{
            return error.name === "SecurityError";  // drawn from another site's image
        }}
    }};
    const pixels = canvas => {{
        try {{ return canvas.toDataURL(); }} catch {{ return "tainted"; }}
    }};
    const part = element => {{
        const tag = element.localName;
        if (tag === "img") {{
            const source = element.currentSrc || element.src;
            return {{ source, print: source, ready: element.complete && element.naturalWidth > 0 }};
        }}
        if (tag === "canvas")
            return {{
                source: "", print: pixels(element), ready: isDrawn(element), drawn: true,
            }};
        if (tag === "svg") {{
            const ready = element.childElementCount > 0;
            return {{ source: "", print: element.outerHTML, ready, drawn: true }};
        }}
        if (tag === "input" && element.type === "image") {{
            const source = address(element.getAttribute("src") || "");
            return {{ source, print: source, ready: isLoaded(source) }};
        }}
        const style = getComputedStyle(element).backgroundImage;
        const urls = [...style.matchAll(/url\\("(.*?)"\\)/g)].map(match => address(match[1]));
        return {{
            source: urls.length === 1 ? urls[0] : "", print: style, ready: urls.every(isLoaded),
        }};
    }};
    const digest = text => {{
        let [high, low] = [0xdeadbeef, 0x41c6ce57];
        for (let place = 0; place < text.length; place++) {{
            const code = text.charCodeAt(place);
            high = Math.imul(high ^ code, 2654435761);
            low = Math.imul(low ^ code, 1597334677);
        }}
        return `${{text.length}}-${{high >>> 0}}-${{low >>> 0}}`;
    }};
    const image = index => {{
        const inside = "img, canvas, svg, input[type=image]";
        const all = [elements[index], ...elements[index].querySelectorAll(inside)]
            .filter((element, place) => !place || shown(element)).map(part);
        const sources = all.map(one => one.source).filter(Boolean);
        return {{
            index,
            ready: all.every(one => one.ready),
            print: digest(all.map(one => one.print).join("\\n")),
            source: sources.length === 1 ? sources[0] : "",
            is_drawn_by_script: all.some(one => one.drawn),
            others: elements.filter(element => shown(element)
                && !elements[index].contains(element)).map(nameOf),
        }};
    }};
    const body = document.body || document.documentElement;
    const text = (body ? body.textContent : "").replace(/[\\d\\s]+/g, "");
    const seen = body ? body.innerText.trim() : "";
    const visible = "img, svg, canvas, video, iframe, frame, object, embed, input, select, "
        + "textarea, button";
    const alive = 'script:not([type]), script[type=""], script[type="module"], '
        + 'script[type*="javascript" i], [onload], [onerror], iframe, frame, object, embed, '
        + 'meta[http-equiv="refresh" i]';
    const busy = '[aria-busy="true"], [role="progressbar"], progress, [class*="spinner" i], '
        + '[class*="loading" i], [class*="skeleton" i]';
    const [navigation] = performance.getEntriesByType("navigation");
    const index = elements.findIndex(shown);
    const loading = elements.flatMap(element => [element, ...element.querySelectorAll("img")])
        .filter(one => one.localName === "img" && one.hasAttribute("src") && !one.complete);
    return {{
        origin: performance.timeOrigin,
        loaded: document.readyState === "complete",
        status: (navigation && navigation.responseStatus) || 0,
        is_from_history: Boolean(navigation) && navigation.type === "back_forward",
        text: `${{document.getElementsByTagName("*").length}}-${{digest(text)}}`,
        is_blank: !seen && ![...document.querySelectorAll(visible)].some(shown),
        is_text: !document.contentType.includes("html")
            || (!document.doctype && document.getElementsByTagName("*").length <= 3),
        is_static: !document.querySelector(alive) && !performance.getEntriesByType("resource")
            .some(load => load.initiatorType === "script"),
        is_loading: loading.length > 0
            || [...document.querySelectorAll(busy)].slice(0, 20).some(shown)
            || (seen.length < 40 && /(\\.\\.\\.|…)$/.test(seen)),
        attached: elements.length > 0,
        is_lazy: loading.some(one => one.loading === "lazy"),
        image: index < 0 ? null : image(index),
    }};
}}"""

# Bring an element into view, then name what lies above it: an element that is painted itself, or,
# where clicks are to arrive, any other.
HIT = f"""(element, isForClick) => {{
    {_NAME}
    const at = (x, y) => {{
        let found = document.elementFromPoint(x, y);
        while (found && found.shadowRoot) {{
            const inner = found.shadowRoot.elementFromPoint(x, y);
            if (!inner || inner === found) break;
            found = inner;
        }}
        return found;
    }};
    const up = one => one.parentElement || one.getRootNode().host || null;
    const holds = (outer, inner) => {{
        for (let one = inner; one; one = up(one)) if (one === outer) return true;
        return false;
    }};
    const paints = one => {{
        const style = getComputedStyle(one);
        if (style.opacity === "0") return false;
        return style.backgroundImage !== "none"
            || !/^(transparent|rgba\\(.*, 0\\))$/.test(style.backgroundColor)
            || one.matches("img, svg, canvas, video, iframe, object, embed, input, button");
    }};
    const isAbove = found => {{
        if (!found || holds(found, element) || holds(element, found)) return false;
        if (isForClick) return !holds(element.closest("label"), found);
        for (let one = found; one && !holds(one, element); one = up(one))
            if (paints(one)) return true;
        return false;
    }};
    const places = isForClick ? [[.5, .5]]
        : [[.5, .5], [.15, .2], [.85, .2], [.15, .8], [.85, .8]];
    const inTheWay = () => {{
        const box = element.getBoundingClientRect();
        for (const [right, down] of places) {{
            const [x, y] = [box.left + box.width * right, box.top + box.height * down];
            if (x < 0 || y < 0 || x >= innerWidth || y >= innerHeight) return "out of view";
            const found = at(x, y);
            if (isAbove(found)) return nameOf(found);
        }}
        return null;
    }};
    let found = inTheWay();
    if (!found) return null;
    element.scrollIntoView({{ block: "center", inline: "center", behavior: "instant" }});
    found = inTheWay();
    // An element larger than the window, or one that sticks out of it, is seen as far as it can be.
    return found === "out of view" ? null : found;
}}"""

SCROLL_TO = """elements => {
    const [element] = elements;
    if (element) element.scrollIntoView({ block: "center", behavior: "instant" });
}"""

# What lies above a frame at a place of its own window, by the page around it.
ABOVE_FRAME = f"""([x, y]) => {{
    {_NAME}
    const found = document.elementFromPoint(x, y);
    return !found || found.shadowRoot || found.matches("iframe, frame, object, embed")
        ? null : nameOf(found);
}}"""

# Whether a picture is of one colour, but for a frame around it.
IS_UNIFORM = """async base64 => {
    try {
        const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
        const bitmap = await createImageBitmap(new Blob([bytes]));
        const [width, height] = [Math.min(bitmap.width, 400), Math.min(bitmap.height, 400)];
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        context.drawImage(bitmap, 0, 0, width, height);
        const [x, y] = [Math.floor(width / 20) + 2, Math.floor(height / 20) + 2];
        if (width <= 2 * x || height <= 2 * y) return width * height <= 16;
        const { data } = context.getImageData(x, y, width - 2 * x, height - 2 * y);
        for (let place = 4; place < data.length; place++)
            if (Math.abs(data[place] - data[place % 4]) > 3) return false;
        return true;
    } catch {
        return false;
    }
}"""

# Controls as their form sees them. `mine`: it belongs to the form that the captcha, the field for
# the answer or the rule names; where there is no form, all controls of the page do.
CONTROLS = f"""(elements, [image, input, form]) => {{
    {_SHOWN}
    {_NAME}
    const around = element => {{
        for (let one = element; one; one = one.parentNode || one.host)
            if (one.localName === "form") return one;
        return null;
    }};
    const inside = form && (form.localName === "form" ? form : form.querySelector("form"));
    const owner = inside || around(form) || form
        || (input && (input.form || around(input))) || (image && around(image));
    const isMine = element => !owner || element.form === owner || owner.contains(element)
        || around(element) === owner;
    const said = element => [
        element.name, element.id, element.placeholder, element.title,
        element.getAttribute("aria-label"),
        ...[...(element.labels || [])].map(label => label.textContent),
    ].map(words => words || "").join(" | ");
    return elements.map((element, index) => ({{
        index,
        tag: element.localName,
        type: element.type || "",
        name: element.name || "",
        id: element.id || "",
        value: element.value || "",
        said: said(element),
        caption: element.localName === "input"
            ? element.value || element.alt || "" : element.textContent,
        mine: isMine(element),
        in_form: Boolean(element.form || owner),
        shown: shown(element),
        checked: Boolean(element.checked),
        chosen: [...(element.selectedOptions || [])].map(option => option.value),
        is_box: element.maxLength === 1 || element.getBoundingClientRect().width <= 64,
        markup: nameOf(element),
        free: !element.matches(":disabled") && !element.readOnly,
        is_image: element === image,
        options: [...(element.options || [])].map(option => [option.value, option.text.trim()]),
    }}));
}}"""

# Names of the controls in which somebody has filled in what a reload would lose.
FILLED_IN = """elements => elements.filter(element => {
    if (element.type === "hidden" || element.type === "image") return false;
    if (element.localName === "select") {
        const given = [...element.options].some(option => option.defaultSelected);
        return [...element.options].some((option, place) => option.selected
            !== (given ? option.defaultSelected : !element.multiple && !place));
    }
    if (element.type === "checkbox" || element.type === "radio")
        return element.checked !== element.defaultChecked;
    return "defaultValue" in element && element.value !== element.defaultValue;
}).map(element => element.name || element.id)"""

# Set a control that nobody can see, and so nobody can click or type into.
SET = """(element, value) => {
    if (element.type === "checkbox" || element.type === "radio") {
        if (element.checked !== value) element.click();
        return;
    }
    element.value = value;
    for (const kind of ["input", "change"])
        element.dispatchEvent(new Event(kind, { bubbles: true }));
}"""

READ_BLOB = """async (elements, url) => {
    const blob = await (await fetch(url)).blob();
    return await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.onerror = () => reject(reader.error);
        reader.readAsDataURL(blob);
    });
}"""

# Milliseconds until the page leads elsewhere by itself; null if it does not, or not soon.
LEADS_ON_IN = """() => {
    const meta = document.querySelector('meta[http-equiv="refresh" i]');
    const seconds = meta && /url *=/i.test(meta.content) ? parseFloat(meta.content) : NaN;
    return seconds <= 3 ? seconds * 1000 : null;
}"""
