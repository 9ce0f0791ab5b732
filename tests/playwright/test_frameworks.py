"""Pages built with real libraries: Vue with Element Plus, React by itself and with Ant Design."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from scrapy_acecaptcha.flow import Steps
from scripts.prepare_tests import in_ci
from tests.lab import Lab

CACHE = Path(__file__).parents[2] / ".cache" / "npm"
FILES = {
    "vue@3.5.45": ["dist/vue.global.prod.js"],
    "element-plus@2.14.8": ["dist/index.full.min.js", "dist/index.css"],
    "react@18.3.1": ["umd/react.production.min.js"],
    "react-dom@18.3.1": ["umd/react-dom.production.min.js"],
    "dayjs@1.11.23": ["dayjs.min.js"],
    "antd@5.29.3": ["dist/antd.min.js"],
}


def served_as(package: str, file: str) -> str:
    return f"{package}-{Path(file).name}"


@pytest.fixture(scope="session")
def libraries() -> Path:
    """A folder with the libraries, which npm is asked for once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        for package, files in FILES.items():
            if not all((CACHE / served_as(package, file)).exists() for file in files):
                download(package, files)
    return CACHE


def download(package: str, files: list[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        (pytest.fail if in_ci() else pytest.skip)("needs npm")
    command = [npm, "pack", "--silent", package, "--pack-destination", str(CACHE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        pytest.skip(f"npm cannot be asked for {package}: {done.stderr[-300:]}")
    packed = CACHE / done.stdout.split()[-1]
    with tarfile.open(packed) as archive:
        for file in files:
            content = archive.extractfile(f"package/{file}")
            assert content is not None
            (CACHE / served_as(package, file)).write_bytes(content.read())
    packed.unlink()


def page(html: str, *packages: str) -> str:
    """A page with *packages*, an `#app`, and a site that has its captcha as JSON."""
    names = [served_as(package, file) for package in packages for file in FILES[package]]
    links = [
        f"<link rel=stylesheet href='/library/{name}'>"
        if name.endswith(".css")
        else f"<script src='/library/{name}'></script>"
        for name in names
    ]
    return "".join(links) + SITE + f"<div id=app></div>{html}"


SITE = """<script>
    const pause = () => new Promise(resolve => setTimeout(resolve, 150));
    const newImage = async () => {
        await pause();
        return (await (await fetch("/captcha.json")).json()).image;
    };
    const isRight = async fields => {
        const answer = await fetch("/check", { method: "POST", body: new URLSearchParams(fields) });
        return (await answer.json()).ok;
    };
</script>"""

# A dialog at the end of <body> that stays in the page when it is closed, a mask over the image as
# long as it loads, a button that spins, and a message for a wrong answer.
ELEMENT_PLUS = page(
    """<script type=text/x-template id=template>
    <el-button id=open @click="isOpen = true; load()">Show</el-button>
    <p v-if=isDone>Record 1</p>
    <el-dialog v-model=isOpen title="Are you human?">
        <el-input v-model=name placeholder=Name></el-input>
        <div v-loading=isLoading><img class=captcha :src=image style="min-height: 40px"></div>
        <el-input v-model=code placeholder="Verification code" maxlength=5></el-input>
        <template #footer>
            <el-button @click="isOpen = false">Cancel</el-button>
            <el-button type=primary :loading=isSending @click=send>OK</el-button>
        </template>
    </el-dialog></script><script>
    Vue.createApp({
        template: "#template",
        data: () => ({ name: "", code: "", image: "", isOpen: false, isLoading: false,
            isSending: false, isDone: false }),
        methods: {
            async load() {
                this.isLoading = true;
                this.image = await newImage();
                this.isLoading = false;
            },
            async send() {
                this.isSending = true;
                const right = await isRight({ name: this.name, code: this.code });
                this.isSending = false;
                if (right) return this.isOpen = false, this.isDone = true;
                ElementPlus.ElMessage.error("Wrong code");
                this.code = "";
                this.load();
            },
        },
    }).use(ElementPlus).mount("#app");</script>""",
    "vue@3.5.45",
    "element-plus@2.14.8",
)

# The whole form is another one after a wrong answer; the field is a controlled one, which changes
# what is typed; the button is disabled until then.
REACT = page(
    """<script>
    const { createElement: h, useEffect, useState } = React;
    const Form = ({ answered }) => {
        const [image, setImage] = useState(null), [code, setCode] = useState("");
        useEffect(() => { newImage().then(setImage); }, []);
        const send = async event => {
            event.preventDefault();
            answered(await isRight({ code }));
        };
        return h("form", { onSubmit: send },
            image && h("img", { className: "captcha", src: image }),
            h("input", { name: "code", value: code,
                onChange: event => setCode(event.target.value.toUpperCase()) }),
            h("button", { disabled: code.length < 5 }, "Send"));
    };
    const App = () => {
        const [tries, setTries] = useState(0), [isDone, setDone] = useState(false);
        if (isDone) return h("h1", null, "Record 1");
        return h("div", null, tries > 0 && h("p", null, "Wrong"),
            h(Form, { key: tries, answered: ok => ok ? setDone(true) : setTries(tries + 1) }));
    };
    ReactDOM.createRoot(document.querySelector("#app")).render(h(App));</script>""",
    "react@18.3.1",
    "react-dom@18.3.1",
)

# A spinner turns inside of the captcha's box; the form checks its fields itself and resets one.
ANT_DESIGN = page(
    """<script>
    const { createElement: h, useEffect, useState } = React;
    const { Button, Form, Input, Spin, message } = antd;
    const App = () => {
        const [image, setImage] = useState(null), [isDone, setDone] = useState(false);
        const [isSending, setSending] = useState(false), [form] = Form.useForm();
        const load = async () => { setImage(null); setImage(await newImage()); };
        useEffect(() => { load(); }, []);
        const send = async fields => {
            setSending(true);
            const right = await isRight(fields);
            setSending(false);
            if (right) return setDone(true);
            message.error("Wrong code");
            form.resetFields(["code"]);
            load();
        };
        if (isDone) return h("h1", null, "Record 1");
        return h(Form, { form, onFinish: send },
            h(Form.Item, { name: "name", label: "Name" }, h(Input, { placeholder: "Name" })),
            h(Form.Item, { name: "code", label: "Captcha", rules: [{ required: true }] }, h(Input)),
            h("div", { className: "captcha", style: { width: 160, height: 60 } },
                h(Spin, { spinning: !image },
                    image ? h("img", { src: image }) : h("div", { style: { height: 50 } }))),
            h(Button, { htmlType: "submit", type: "primary", loading: isSending }, "OK"));
    };
    ReactDOM.createRoot(document.querySelector("#app")).render(h(App));</script>""",
    "react@18.3.1",
    "react-dom@18.3.1",
    "dayjs@1.11.23",
    "antd@5.29.3",
)

PAGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "Element Plus": (
        ELEMENT_PLUS,
        {"input": "[placeholder='Verification code']", "submit": "text=OK"},
        "#open",
    ),
    "React": (REACT, {"input": "[name=code]"}, ""),
    "Ant Design": (ANT_DESIGN, {"input": "#code", "submit": "text=OK"}, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("library", PAGES)
def test_a_wrong_answer_and_a_right_one(
    visit: Any, lab: Lab, lab_api: Any, libraries: Path, library: str
) -> None:
    lab.page, rule, button = PAGES[library]
    lab.libraries = libraries
    lab_api.script.append("XXXXX")

    def before(page: Any) -> Steps[None]:
        if button:
            yield page.click(button)
        if library != "React":
            yield page.get_by_placeholder("Name").fill("Smith")

    result, text = visit(before, image=".captcha", timeout=5000, **rule)
    assert (result.attempts, len(lab_api.calls)) == (2, 2)
    assert "Record 1" in text
    assert [sent.get("name", ["Smith"]) for sent in lab.sent] == [["Smith"]] * 2
