// The events of Captions & crops: buttons, keys, drags, dropped files, and findings as they come.
(function() {
    "use strict";

    const EDGE = 0.05;
    const MOST_LISTED = 3000;
    let drag = null;
    let ended = "";

    function kit() {
        return window.trainLoraWorkbench;
    }

    // The part of the event's path that is ours; gradio 3 keeps its page in a shadow root.
    function hit(event, selector) {
        return event.composedPath().find(function(element) {
            return element instanceof HTMLElement && element.matches(selector);
        });
    }

    // The other script of the workbench adds its own.
    const actions = window.trainLoraWorkbenchActions = {
        close: function() {
            kit().bench().hidden = true;
        },
        undo: function() {
            kit().change({do: "undo"}).then(kit().load).catch(function() {});
        },
        earlier: function() {
            kit().state.start = Math.max(0, kit().state.start - 60);
            kit().load(true);
        },
        later: function() {
            kit().state.start += 60;
            kit().load(true);
        },
        bulk: function() {
            const state = kit().state;
            const value = name => kit().bench().querySelector("[data-bulk=" + name + "]").value;
            const text = value("text") || (value("action") === "first" ? state.word : "");
            const command = {do: "bulk", action: value("action"), text: text, new: value("new"), tag: state.tag};
            kit().change(Object.assign(command, {numbers: state.numbers})).then(kit().load).catch(function() {});
        },
        faces: function() {
            kit().change({do: "faces"}).catch(function() {});
        },
        exclude: function(element) {
            const picture = element.picture;
            kit().change({do: "exclude", number: picture.number, excluded: !picture.excluded}).catch(function() {});
        },
        whole: function(element) {
            kit().change({do: "crop", number: element.picture.number, crop: null}).catch(function() {});
        },
    };

    function filter(tag, numbers, label) {
        Object.assign(kit().state, {tag: tag, numbers: numbers, label: label, start: 0});
        return kit().load();
    }

    document.addEventListener("click", function(event) {
        const bench = kit().bench();
        const opener = hit(event, "[data-open-workbench]");
        const finding = hit(event, "#train_lora_gallery [data-pictures]");
        if (opener) {
            kit().open();
        } else if (finding) {
            // They travel in an address, which servers limit.
            const numbers = JSON.parse(finding.dataset.pictures).slice(0, MOST_LISTED);
            kit().open().then(function() {
                filter("", numbers, numbers.length + " pictures: " + finding.textContent);
            });
        } else if (bench && event.composedPath().includes(bench)) {
            const button = hit(event, "[data-do]");
            const tag = hit(event, "[data-tag]");
            if (button) {
                actions[button.dataset.do](hit(event, "[data-number]"));
            } else if (tag) {
                const chosen = tag.dataset.tag === kit().state.tag ? "" : tag.dataset.tag;
                filter(chosen, null, chosen ? "those with “" + chosen + "”" : "");
            }
        }
    });

    document.addEventListener("input", function(event) {
        const element = hit(event, ".train-lora-workbench [data-number]");
        if (element) {
            kit().typed(element);
        } else if (hit(event, "[data-bulk=action]")) {
            const action = hit(event, "[data-bulk=action]").value;
            kit().bench().querySelector("[data-bulk=new]").hidden = action !== "replace";
            kit().bench().querySelector("[data-bulk=text]").hidden = ["sort", "dedupe"].includes(action);
        }
    });

    // A folder of pictures of the class: it is scanned again, to show what an epoch draws then.
    document.addEventListener("change", function(event) {
        const box = hit(event, "#train_lora_gallery [data-regularise]");
        if (box) {
            // The table is there before the first look at the findings, which sets the key too.
            kit().state.key = kit().find("#train_lora_gallery [data-workbench]").dataset.workbench;
            kit().change({do: "regularise", folder: box.dataset.regularise, on: box.checked}).then(function() {
                kit().find("#train_lora_scan").click();
            }).catch(function() {
                box.checked = !box.checked;
            });
        }
    });

    document.addEventListener("focusout", function(event) {
        const element = hit(event, ".train-lora-workbench [data-number]");
        if (element) {
            kit().save(element);
        }
    });

    document.addEventListener("keydown", function(event) {
        const bench = kit().bench();
        if (!bench || bench.hidden || !event.composedPath().includes(bench)) {
            return;
        }
        const cards = [...bench.querySelectorAll("[data-number]")];
        const place = cards.indexOf(hit(event, "[data-number]"));
        const move = event.altKey && {ArrowDown: 1, ArrowUp: -1}[event.key];
        if (move && cards[place + move]) {
            cards[place + move].querySelector("textarea").focus();
            cards[place + move].scrollIntoView({block: "nearest"});
        } else if (event.ctrlKey && event.key === "s" && place >= 0) {
            kit().save(cards[place]);
        } else if (event.ctrlKey && event.altKey && event.key.toLowerCase() === "z") {
            actions.undo();
        } else if (!move) {
            return;
        }
        // The browser would save the page, or the WebUI change a prompt's weight.
        event.preventDefault();
        event.stopPropagation();
    }, true);

    function share(event) {
        const box = drag.frame.getBoundingClientRect();
        const within = value => Math.min(1, Math.max(0, value));
        return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
    }

    document.addEventListener("pointerdown", function(event) {
        const frame = hit(event, ".train-lora-workbench .frame");
        if (frame && event.button === 0) {
            drag = {frame: frame, card: hit(event, "[data-number]")};
            drag.from = share(event);
            event.preventDefault();
        }
    });

    document.addEventListener("pointermove", function(event) {
        if (drag) {
            const to = share(event);
            const low = axis => Math.min(drag.from[axis], to[axis]);
            const high = axis => Math.max(drag.from[axis], to[axis]);
            drag.crop = [low(0), low(1), high(0), high(1)];
            kit().drawCrop(drag.card, drag.crop);
        }
    });

    document.addEventListener("pointerup", function() {
        const crop = drag && drag.crop;
        if (crop && crop[2] - crop[0] > EDGE && crop[3] - crop[1] > EDGE) {
            kit().change({do: "crop", number: drag.card.picture.number, crop: crop}).catch(function() {});
        } else if (drag) {
            kit().drawCrop(drag.card, drag.card.picture.crop);
        }
        drag = null;
    });

    // Files that are dropped anywhere on the tab go to gradio's own upload, which has limits and a login.
    function dropped(event) {
        const page = kit().find("#train_lora_page");
        return page && event.composedPath().includes(page) && event.dataTransfer && event.dataTransfer.types.includes("Files");
    }

    document.addEventListener("dragover", function(event) {
        if (dropped(event)) {
            event.preventDefault();
        }
    });

    document.addEventListener("drop", function(event) {
        const input = kit().find("#train_lora_drop input[type=file]");
        if (dropped(event) && input && !hit(event, ".train-lora-own-drop")) {
            event.preventDefault();
            input.files = event.dataTransfer.files;
            input.dispatchEvent(new Event("change", {bubbles: true}));
        }
    });

    function showFindings(place, found) {
        const lines = found.findings.filter(item => !kit().SAID.includes(item.kind)).map(function(item) {
            const line = kit().make("li", (item.severity === "warning" ? "⚠ " : "· ") + item.sentence, {});
            if (item.pictures.length) {
                line.dataset.pictures = JSON.stringify(item.pictures);
            }
            return line;
        });
        if (!found.ended) {
            const how = found.phase === "comparing" ? " pictures compared …" : " pictures looked at …";
            lines.push(kit().make("li", found.done + " of " + found.total + how, {class: "progress"}));
        }
        place.querySelector("ul").replaceChildren(...lines);
    }

    setInterval(function() {
        const place = kit().find("#train_lora_gallery [data-workbench]");
        if (!place || document.hidden || !place.dataset.workbench || place.dataset.workbench === ended || place.asking) {
            return;
        }
        // A new scan has a new key; the list that is open belongs to the last one.
        kit().state.key = place.dataset.workbench;
        place.asking = true;
        kit().read("/findings").then(function(found) {
            showFindings(place, found);
            ended = found.ended ? place.dataset.workbench : "";
        }).catch(function() {
            ended = place.dataset.workbench;
        }).finally(function() {
            place.asking = false;
        });
    }, 400);
})();
