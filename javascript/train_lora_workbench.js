// Captions & crops: what the page asks and changes. It reads by our routes; what it changes goes through a hidden button,
// under gradio's own login. Every text from a file is set as text, never as HTML.
(function() {
    "use strict";

    const ROUTES = "./train-lora/v1/datasets/";
    const PATIENCE_MS = 30000;
    const PAGE = 60;
    // What the gallery says already.
    const SAID = ["small", "caption"];
    const state = {
        key: "", start: 0, total: 0, tag: "", numbers: null, label: "", word: "", sent: 0, asked: 0, askedTags: 0
    };
    let line = Promise.resolve();
    let pressed = false;
    let held = [];

    document.addEventListener("pointerdown", function() {
        pressed = true;
    }, true);
    // A release over a menu of the browser's is never told; the next movement has no button down.
    ["pointerup", "pointercancel", "pointermove"].forEach(function(kind) {
        document.addEventListener(kind, function(event) {
            if (!pressed || (kind === "pointermove" && event.buttons)) {
                return;
            }
            pressed = false;
            const now = held;
            held = [];
            // The click comes after it, and finds what was pressed.
            setTimeout(function() {
                now.forEach(resolve => resolve());
            });
        }, true);
    });

    // What is replaced between press and release loses the click, so that an answer waits for the release.
    function whenReleased(value) {
        return pressed ? new Promise(resolve => held.push(resolve)).then(() => value) : value;
    }

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    function make(tag, text, attributes) {
        const element = document.createElement(tag);
        element.textContent = text || "";
        Object.entries(attributes || {}).forEach(function([name, value]) {
            element.setAttribute(name, value);
        });
        return element;
    }

    function bench() {
        return find(".train-lora-workbench");
    }

    function say(text, wrong) {
        const output = bench().querySelector("output");
        output.textContent = text || "";
        output.classList.toggle("wrong", Boolean(wrong));
    }

    function pageKey() {
        const mark = find("#train_lora_heartbeat [data-heartbeat]");
        return mark ? mark.dataset.key : "";
    }

    function read(path) {
        return fetch(ROUTES + state.key + path, {headers: {"X-Train-Lora-Key": pageKey()}, cache: "no-store"})
            .then(function(answer) {
                return answer.json().then(function(values) {
                    if (!answer.ok) {
                        throw new Error(values.detail ? values.detail.error + " " + values.detail.hint : answer.statusText);
                    }
                    return values;
                });
            });
    }

    // One command after the other: an answer belongs to the last one that was sent.
    function send(command) {
        const waiting = line.then(function() {
            return sendNow(command);
        });
        line = waiting.catch(function() {});
        return waiting;
    }

    function sendNow(command) {
        state.sent += 1;
        const id = Date.now() + "-" + state.sent;
        const field = find("#train_lora_workbench_command textarea, #train_lora_workbench_command input");
        field.value = JSON.stringify(Object.assign({key: state.key, id: id}, command));
        field.dispatchEvent(new Event("input", {bubbles: true}));
        // gradio takes the field's value over in its own time.
        setTimeout(function() {
            find("#train_lora_workbench_send").click();
        }, 60);
        const started = Date.now();
        return new Promise(function(resolve, reject) {
            const timer = setInterval(function() {
                const mark = find("#train_lora_workbench_answer [data-answer]");
                const answer = mark ? JSON.parse(mark.dataset.answer) : {};
                if (answer.id === id) {
                    clearInterval(timer);
                    answer.error ? reject(new Error(answer.error)) : resolve(answer);
                } else if (Date.now() - started > PATIENCE_MS) {
                    clearInterval(timer);
                    reject(new Error("The WebUI does not answer; nothing typed is lost while this page is open."));
                }
            }, 50);
        });
    }

    function change(command) {
        return send(command).then(function(answer) {
            (answer.changed || []).forEach(window.trainLoraWorkbench.showChanged);
            bench().querySelector("[data-do=undo]").disabled = !answer.undo;
            say(answer.message);
            loadTags();
            return answer;
        }).catch(function(error) {
            say(error.message, true);
            throw error;
        });
    }

    function open() {
        state.key = find("#train_lora_gallery [data-workbench]").dataset.workbench;
        Object.assign(state, {start: 0, tag: "", numbers: null, label: ""});
        bench().hidden = false;
        bench().scrollIntoView({block: "start"});
        say("");
        return load();
    }

    // Turning a page changes no tag, and counting those of thousands of captions takes a second.
    function load(keepsTags) {
        const numbers = state.numbers ? "&numbers=" + state.numbers.join(",") : "";
        const query = "?start=" + state.start + "&count=" + PAGE + "&tag=" + encodeURIComponent(state.tag) + numbers;
        const asked = ++state.asked;
        return read("/pictures" + query).then(whenReleased).then(function(found) {
            // Answers may overtake each other: an older one would show what is no longer asked for.
            if (asked !== state.asked) {
                return;
            }
            state.total = found.total;
            state.word = found.trigger_word;
            const cards = bench().querySelector(".cards");
            cards.replaceChildren(...found.pictures.map(window.trainLoraWorkbench.card));
            const last = Math.min(state.start + PAGE, state.total);
            bench().querySelector(".place").textContent = (state.total ? state.start + 1 : 0) + "–" + last + " of " + state.total;
            bench().querySelector("[data-do=earlier]").disabled = state.start === 0;
            bench().querySelector("[data-do=later]").disabled = last >= state.total;
            bench().querySelector(".scope").textContent = "of " + (state.label || "all " + state.total + " pictures");
            if (keepsTags !== true) {
                loadTags();
            }
        }).catch(function(error) {
            say(error.message, true);
        });
    }

    function loadTags() {
        const asked = ++state.askedTags;
        read("/tags").then(whenReleased).then(function(tags) {
            const table = bench().querySelector(".tags");
            const shown = JSON.stringify([tags, state.tag]);
            if (asked !== state.askedTags || table.shown === shown) {
                return;
            }
            table.shown = shown;
            const shared = tags.filter(tag => tag.everywhere).map(tag => tag.tag);
            bench().querySelector(".note").textContent = shared.length
                ? "In every caption, so learned as one: " + shared.join(", ") + ". The others can be varied in a prompt."
                : "No tag stands in every caption.";
            table.replaceChildren(...tags.map(function(tag) {
                const button = make("button", tag.tag, {"data-tag": tag.tag, type: "button"});
                button.appendChild(make("small", String(tag.count)));
                button.classList.toggle("everywhere", tag.everywhere);
                button.classList.toggle("chosen", tag.tag === state.tag);
                return button;
            }));
        }).catch(function() {});
    }

    // The other scripts of the workbench add to it.
    window.trainLoraWorkbench = {state, find, make, bench, say, read, change, open, load, pageKey, ROUTES, SAID};
})();
