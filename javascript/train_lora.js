// Shows the state of the run: asks the route /train-lora/v1/view and replaces what has changed. Where the route cannot be
// reached it presses a hidden button instead, which passes through gradio's own connection and login.
(function() {
    "use strict";

    const ROUTES = "./train-lora/v1/";
    const LIVE_MS = 1000;
    const IDLE_MS = 5000;
    const AWAY_MS = 10000;
    const PATIENCE_MS = 10000;
    let asked = 0;
    let answered = "";
    let waiting = false;
    let tries = 1;
    let scans = 6;
    let version = "";
    let fetched = 0;
    let fetching = false;
    let misses = 0;
    let pressedFor = "";
    let pointer = null;

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    function onScreen(element) {
        return element !== null && !document.hidden && find("#train_lora_page").getClientRects().length > 0;
    }

    // After a reload the folder is filled in again: show what is in it. A folder that is being typed is left alone.
    function scanAgain() {
        const folder = find("#train_lora_train_data_dir textarea, #train_lora_train_data_dir input");
        if (folder.value && folder !== folder.getRootNode().activeElement && find("#train_lora_gallery .idle")) {
            scans = 0;
            find("#train_lora_scan").click();
        }
    }

    function panel() {
        return find("#train_lora_status [data-live]");
    }

    // What a gradio answer brought along: the page's key, and for which state it has set the buttons.
    function heartbeat() {
        const mark = find("#train_lora_heartbeat [data-heartbeat]");
        return mark ? mark.dataset : {heartbeat: "", key: "", buttons: ""};
    }

    function isLive() {
        return panel() !== null && panel().dataset.live === "1";
    }

    function showParts(view) {
        const whole = panel();
        whole.className = "train-lora-status " + view.state;
        whole.dataset.live = view.live ? "1" : "0";
        Object.entries(view.parts).forEach(function([name, html]) {
            const part = whole.querySelector("[data-part=" + name + "]");
            if (part && part.dataset.shown !== html) {
                const open = part.querySelector("details[open]") !== null;
                part.innerHTML = html;
                part.dataset.shown = html;
                if (open && part.querySelector("details")) {
                    part.querySelector("details").open = true;
                }
            }
        });
        addressPictures();
        showPoint();
    }

    function addressPictures() {
        const key = encodeURIComponent(heartbeat().key);
        panel().querySelectorAll("img[data-src]:not([src])").forEach(function(picture) {
            picture.src = ROUTES + picture.dataset.src + "?key=" + key;
            picture.parentElement.href = picture.src;
        });
    }

    function fetchView() {
        fetching = true;
        fetched = Date.now();
        fetch(ROUTES + "view?seen=" + encodeURIComponent(version), {
            headers: {"X-Train-Lora-Key": heartbeat().key},
            cache: "no-store",
        }).then(function(answer) {
            if (!answer.ok) {
                throw new Error(answer.statusText);
            }
            return answer.json();
        }).then(function(view) {
            misses = 0;
            document.dispatchEvent(new CustomEvent("train-lora-head", {detail: view.head}));
            if (view.parts && panel()) {
                version = view.version;
                showParts(view);
                setButtons(view.buttons);
                document.dispatchEvent(new CustomEvent("train-lora-saved", {detail: view.saved}));
            }
        }).catch(function() {
            misses += 1;
            version = "";
        }).finally(function() {
            fetching = false;
        });
    }

    // Only gradio can set its buttons; it is asked once for every state that they depend on.
    function setButtons(state) {
        if (state !== heartbeat().buttons && state !== pressedFor) {
            pressedFor = state;
            press();
        }
    }

    function press() {
        waiting = true;
        asked = Date.now();
        find("#train_lora_refresh").click();
    }

    function tick() {
        const button = find("#train_lora_refresh");
        if (!onScreen(button) || !panel()) {
            // Somebody who draws in another tab is told there of the new file.
            if (!document.hidden && panel() && isLive() && !fetching && Date.now() - fetched >= AWAY_MS) {
                fetchView();
            }
            return;
        }
        if (scans > 0) {
            scans -= 1;
            scanAgain();
        }
        const now = Date.now();
        const pause = isLive() ? LIVE_MS : IDLE_MS;
        if (heartbeat().heartbeat !== answered) {
            answered = heartbeat().heartbeat;
            waiting = false;
            tries = 1;
            pressedFor = heartbeat().buttons;
            // What gradio has drawn anew lacks what the script had put there.
            version = "";
            fetched = 0;
        }
        if (!answered && now - asked >= PATIENCE_MS * tries) {
            tries = Math.min(tries * 2, 32);
            press();
        } else if (answered && !fetching && now - fetched >= (misses ? PATIENCE_MS * Math.min(misses, 6) : pause)) {
            fetchView();
        }
        // Without the route gradio is asked; an overloaded or missing server less and less often.
        if (answered && misses && now - asked >= (waiting ? PATIENCE_MS * tries : pause)) {
            tries = waiting ? Math.min(tries * 2, 32) : 1;
            press();
        }
    }

    // The numbers under the pointer, beside the legend, and a line through them.
    function showPoint() {
        const curve = find("#train_lora_status .train-lora-curve");
        if (!curve || !pointer) {
            return;
        }
        const svg = curve.querySelector("svg");
        const box = svg.getBoundingClientRect();
        const old = svg.querySelector(".cursor");
        if (old) {
            old.remove();
        }
        const inside = pointer.x >= box.left && pointer.x <= box.right && pointer.y >= box.top && pointer.y <= box.bottom;
        if (!inside) {
            curve.querySelector("output").textContent = "";
            return;
        }
        const [left, right, top, bottom, low, high] = svg.dataset.frame.split(" ").map(Number);
        const points = JSON.parse(svg.dataset.points);
        const first = points[0][0];
        const last = points[points.length - 1][0];
        const width = svg.viewBox.baseVal.width;
        const step = first + ((pointer.x - box.left) / box.width * width - left) / (right - left) * (last - first);
        const near = points.reduce(function(best, point) {
            return Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best;
        });
        const x = left + (near[0] - first) / (last - first) * (right - left);
        const y = top + (high - near[2]) / (high - low) * (bottom - top);
        const cursor = document.createElementNS("http://www.w3.org/2000/svg", "g");
        cursor.setAttribute("class", "cursor");
        cursor.innerHTML = '<line x1="' + x + '" x2="' + x + '" y1="' + top + '" y2="' + bottom + '"/>'
            + '<circle cx="' + x + '" cy="' + y + '" r="3.5"/>';
        svg.appendChild(cursor);
        curve.querySelector("output").textContent = "step " + near[0] + " · loss " + near[1].toFixed(4)
            + " · smoothed " + near[2].toFixed(4) + " · rate " + near[3].toExponential(2);
    }

    function copy(text) {
        if (navigator.clipboard && window.isSecureContext) {
            return navigator.clipboard.writeText(text);
        }
        // Over plain http in a local network there is no clipboard API.
        const field = document.createElement("textarea");
        field.value = text;
        document.body.appendChild(field);
        field.select();
        document.execCommand("copy");
        field.remove();
        return Promise.resolve();
    }

    document.addEventListener("mousemove", function(event) {
        pointer = {x: event.clientX, y: event.clientY};
        showPoint();
    });
    document.addEventListener("click", function(event) {
        const button = event.composedPath()[0];
        if (button instanceof HTMLElement && button.classList.contains("train-lora-copy")) {
            copy(button.dataset.copy).then(function() {
                button.textContent = "Copied";
            });
        }
    });
    setInterval(tick, LIVE_MS / 2);
})();
