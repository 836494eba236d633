// Captions & crops: findings beside the gallery, a list of pictures with their captions, tags, crops, and files that are
// dropped onto the tab. It reads by our routes; what it changes goes through a hidden button, under gradio's own login.
// Every text from a file is set as text, never as HTML.
(function() {
    "use strict";

    const ROUTES = "./train-lora/v1/datasets/";
    const SAVE_MS = 700;
    const PATIENCE_MS = 30000;
    const PAGE = 60;
    // What the gallery says already.
    const SAID = ["small", "caption"];
    const state = {key: "", start: 0, total: 0, tag: "", numbers: null, label: "", word: "", sent: 0};
    let line = Promise.resolve();

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
            (answer.changed || []).forEach(showChanged);
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

    function load() {
        const numbers = state.numbers ? "&numbers=" + state.numbers.join(",") : "";
        const query = "?start=" + state.start + "&count=" + PAGE + "&tag=" + encodeURIComponent(state.tag) + numbers;
        return read("/pictures" + query).then(function(found) {
            state.total = found.total;
            state.word = found.trigger_word;
            const cards = bench().querySelector(".cards");
            cards.replaceChildren(...found.pictures.map(card));
            const last = Math.min(state.start + PAGE, state.total);
            bench().querySelector(".place").textContent = (state.total ? state.start + 1 : 0) + "–" + last + " of " + state.total;
            bench().querySelector("[data-do=earlier]").disabled = state.start === 0;
            bench().querySelector("[data-do=later]").disabled = last >= state.total;
            bench().querySelector(".scope").textContent = "of " + (state.label || "all " + state.total + " pictures");
            loadTags();
        }).catch(function(error) {
            say(error.message, true);
        });
    }

    function loadTags() {
        read("/tags").then(function(tags) {
            const shared = tags.filter(tag => tag.everywhere).map(tag => tag.tag);
            bench().querySelector(".note").textContent = shared.length
                ? "In every caption, so learned as one: " + shared.join(", ") + ". The others can be varied in a prompt."
                : "No tag stands in every caption.";
            bench().querySelector(".tags").replaceChildren(...tags.map(function(tag) {
                const button = make("button", tag.tag, {"data-tag": tag.tag, type: "button"});
                button.appendChild(make("small", String(tag.count)));
                button.classList.toggle("everywhere", tag.everywhere);
                button.classList.toggle("chosen", tag.tag === state.tag);
                return button;
            }));
        }).catch(function() {});
    }

    function card(picture) {
        const element = make("article", "", {"data-number": picture.number});
        const frame = make("div", "", {class: "frame"});
        const address = ROUTES + state.key + "/pictures/" + picture.number + "?key=" + encodeURIComponent(pageKey());
        frame.append(make("img", "", {src: address, alt: picture.name, loading: "lazy", draggable: "false"}), make("i", "", {class: "crop"}));
        const side = make("div", "", {class: "side"});
        const text = make("textarea", "", {rows: "4", spellcheck: "false", "aria-label": "Caption of " + picture.name});
        side.append(make("b", picture.name), text, make("p", "", {class: "state"}));
        const buttons = make("div", "", {class: "buttons"});
        buttons.append(make("button", "Exclude", {type: "button", "data-do": "exclude"}), make("button", "Whole picture", {type: "button", "data-do": "whole"}));
        side.appendChild(buttons);
        element.append(frame, side);
        show(element, picture);
        return element;
    }

    function show(element, picture) {
        const text = element.querySelector("textarea");
        element.picture = picture;
        element.classList.toggle("excluded", picture.excluded);
        element.querySelector("[data-do=exclude]").textContent = picture.excluded ? "Include" : "Exclude";
        element.querySelector("[data-do=whole]").hidden = !picture.crop;
        text.readOnly = Boolean(picture.problem);
        // What is being typed stays: its own save brings the version along.
        if (!element.dirty) {
            text.value = picture.caption;
            status(element, picture.problem || (picture.excluded ? "Not in the run" : tokensOf(picture)));
        }
        drawCrop(element, picture.crop);
    }

    // The text encoder reads 75 tokens at a time.
    function tokensOf(picture) {
        if (picture.tokens === null) {
            return "";
        }
        const chunks = Math.max(1, Math.ceil(picture.tokens / 75));
        return picture.tokens + " tokens" + (chunks > 1 ? " in " + chunks + " chunks of 75" : "");
    }

    function showChanged(picture) {
        bench().querySelectorAll("[data-number='" + picture.number + "']").forEach(element => show(element, picture));
    }

    function status(element, text, wrong) {
        const line = element.querySelector(".state");
        line.textContent = text;
        line.classList.toggle("wrong", Boolean(wrong));
    }

    function drawCrop(element, crop) {
        const mark = element.querySelector(".crop");
        mark.hidden = !crop;
        if (crop) {
            const [left, top, right, bottom] = crop.map(share => share * 100);
            Object.assign(mark.style, {left: left + "%", top: top + "%", width: right - left + "%", height: bottom - top + "%"});
        }
    }

    function typed(element) {
        element.dirty = true;
        status(element, "…");
        clearTimeout(element.timer);
        element.timer = setTimeout(function() {
            save(element);
        }, SAVE_MS);
    }

    function save(element) {
        clearTimeout(element.timer);
        if (!element.dirty || element.saving) {
            return;
        }
        const text = element.querySelector("textarea").value;
        element.dirty = false;
        element.saving = true;
        // Put together when it is its turn: the save before it has changed the version.
        change({do: "caption", number: element.picture.number, text: text, version: element.picture.version})
            .then(function(answer) {
                element.saving = false;
                if (answer.conflict) {
                    element.dirty = true;
                    conflict(element, answer.conflict);
                    return;
                }
                status(element, "Saved · " + tokensOf(element.picture));
                if (element.dirty) {
                    save(element);
                }
            }).catch(function(error) {
                element.saving = false;
                element.dirty = true;
                status(element, "Not saved: " + error.message, true);
            });
    }

    // Somebody else was faster: both texts stay in sight until the person chooses.
    function conflict(element, theirs) {
        status(element, "Changed meanwhile to “" + theirs.caption + "”. ", true);
        const keep = make("button", "Keep mine", {type: "button"});
        const take = make("button", "Take theirs", {type: "button"});
        keep.onclick = function() {
            element.picture = theirs;
            element.dirty = true;
            save(element);
        };
        take.onclick = function() {
            element.dirty = false;
            show(element, theirs);
        };
        element.querySelector(".state").append(keep, take);
    }

    window.trainLoraWorkbench = {
        state, find, make, bench, say, read, change, open, load, typed, save, drawCrop, SAID,
    };
})();
