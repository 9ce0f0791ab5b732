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

ANY_SHOWN = f"elements => {{ {_SHOWN} return elements.some(shown); }}"

# How the captcha looks just now. `origin` names the document: it is when its loading began, by the
# browser's clock. `print` changes with the image. An image is made of parts where the selector
# names the box around it.
LOOK = f"""elements => {{
    {_SHOWN}
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
            return {{ source: "", print: pixels(element), ready: isDrawn(element) }};
        if (tag === "svg")
            return {{ source: "", print: element.outerHTML, ready: element.childElementCount > 0 }};
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
        }};
    }};
    const index = elements.findIndex(shown);
    return {{
        origin: performance.timeOrigin,
        loaded: document.readyState === "complete",
        attached: elements.length > 0,
        image: index < 0 ? null : image(index),
    }};
}}"""

# Controls as their form sees them. `mine`: it belongs to the form that the captcha, the field for
# the answer or the rule names; where there is no form, all controls of the page do.
CONTROLS = f"""(elements, [image, input, form]) => {{
    {_SHOWN}
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
        free: !element.matches(":disabled") && !element.readOnly,
        is_image: element === image,
        options: [...(element.options || [])].map(option => [option.value, option.text.trim()]),
    }}));
}}"""

# Whether somebody has filled in what a reload would lose.
FILLED_IN = """elements => elements.some(element => {
    if (element.type === "hidden" || element.type === "image") return false;
    if (element.localName === "select") {
        const given = [...element.options].some(option => option.defaultSelected);
        return [...element.options].some((option, place) => option.selected
            !== (given ? option.defaultSelected : !element.multiple && !place));
    }
    if (element.type === "checkbox" || element.type === "radio")
        return element.checked !== element.defaultChecked;
    return "defaultValue" in element && element.value !== element.defaultValue;
})"""

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

ADD_HIDDEN = """(element, [name, value]) => {
    const hidden = Object.assign(document.createElement("input"), { type: "hidden", name, value });
    (element.form || element.parentNode).append(hidden);
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
