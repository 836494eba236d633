// "All settings": filters them, marks what differs from the chosen recipe, and resets it. It reads the inputs
// of the page; only gradio can set them, so that a reset presses a hidden button.
(function() {
    "use strict";

    const MARK_MS = 500;
    let family = "";

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    // gradio 3 and 4 differ in their elements, but each input lies in the block that has our id.
    function valueOf(field) {
        const box = field.querySelector("input[type=checkbox]");
        if (box) {
            return box.checked;
        }
        const input = field.querySelector("textarea, input");
        return input ? input.value.trim() : null;
    }

    function differs(value, base) {
        if (value === null || typeof base === "boolean") {
            return value !== null && value !== base;
        }
        // 3e-05 and 0.00003 are one number.
        return typeof base === "number" ? value === "" || Number(value) !== base : value !== String(base).trim();
    }

    function baseValues() {
        const holder = find("#train_lora_base textarea, #train_lora_base input");
        try {
            return JSON.parse(holder.value);
        } catch (error) {
            return {};
        }
    }

    function mark(field, name, base) {
        const changed = differs(valueOf(field), base);
        let button = field.querySelector(":scope > [data-reset]");
        if (changed && !button) {
            button = document.createElement("button");
            button.type = "button";
            button.dataset.reset = name;
            field.appendChild(button);
        }
        if (button) {
            const text = typeof base === "boolean" ? (base ? "on" : "off") : String(base);
            const shown = text.length > 16 ? text.slice(0, 15) + "…" : text || "empty";
            if (button.dataset.base !== shown) {
                button.textContent = "↺";
                button.dataset.base = shown;
                button.title = "The recipe has " + (text || "nothing") + ". Click to reset.";
            }
        }
        field.classList.toggle("train-lora-changed", changed);
        return changed;
    }

    // A mistake stays on the page whatever the filter says, and so does a change that no longer applies.
    function isShown(field, name, wanted) {
        const text = (name + " " + field.textContent).toLowerCase();
        const fits = wanted.words.every(function(word) {
            return text.includes(word);
        });
        const changed = field.classList.contains("train-lora-changed");
        const algo = find("#train_lora_algo input");
        const applies = (!wanted.only[name] || !algo || wanted.only[name].includes(algo.value)) &&
            (!wanted.families[name] || !wanted.family || wanted.families[name].includes(wanted.family)) &&
            (!wanted.modes[name] || !wanted.mode || wanted.modes[name].includes(wanted.mode));
        return field.textContent.includes("⚠") || (fits && (changed || (applies && !wanted.changedOnly)));
    }

    // Without a filter a group shows its common settings, and a button for the others.
    function showGroup(group, wanted) {
        const folds = !wanted.changedOnly && !wanted.words.some(Boolean);
        let shown = 0;
        let folded = 0;
        group.querySelectorAll("[id^=train_lora_]").forEach(function(field) {
            const name = field.id.slice("train_lora_".length);
            const fits = isShown(field, name, wanted);
            const urgent = field.classList.contains("train-lora-changed") || field.textContent.includes("⚠");
            const rare = fits && folds && wanted.rare.includes(name) && !urgent;
            folded += rare ? 1 : 0;
            shown += fits ? 1 : 0;
            field.classList.toggle("train-lora-out", !fits || (rare && group.dataset.open !== "1"));
        });
        group.classList.toggle("train-lora-out", shown === 0);
        let button = group.querySelector("h4 [data-more]");
        if (!button) {
            button = document.createElement("button");
            button.type = "button";
            button.dataset.more = "";
            group.querySelector("h4").appendChild(button);
        }
        button.hidden = folded === 0;
        say(button, group.dataset.open === "1" ? "show fewer" : folded + " more");
        return shown;
    }

    // Of the selected checkpoint, from the memory bar; "" before it is known. An invalid input empties the bar.
    function familyNow() {
        const bar = find("#train_lora_memory [data-family]");
        family = bar ? bar.dataset.family : family;
        return family;
    }

    function update() {
        const bar = find(".train-lora-filter");
        if (!bar || document.hidden || find("#train_lora_page").getClientRects().length === 0) {
            return;
        }
        const base = baseValues();
        const count = Object.keys(base).filter(function(name) {
            const field = find("#train_lora_" + name);
            return field && mark(field, name, base[name]);
        }).length;
        const wanted = {
            words: bar.querySelector("[type=search]").value.toLowerCase().split(/\s+/),
            changedOnly: bar.querySelector("[type=checkbox]").checked,
            only: JSON.parse(bar.dataset.only),
            families: JSON.parse(bar.dataset.families),
            family: familyNow(),
            modes: JSON.parse(bar.dataset.modes),
            mode: valueOf(find("#train_lora_mode")),
            rare: JSON.parse(bar.dataset.rare),
        };
        // By it style.css shows in step 1 what is learned from: pictures, pairs or prompts.
        find("#train_lora_page").dataset.mode = wanted.mode;
        let shown = 0;
        find("#train_lora_all").querySelectorAll(".train-lora-group").forEach(function(group) {
            shown += showGroup(group, wanted);
        });
        const missed = shown === 0 && wanted.words.some(Boolean);
        say(bar.querySelector(".count"), missed ? "No setting fits this filter." : count + " changed from the recipe");
        bar.querySelector("[data-reset]").disabled = count === 0;
        say(find(".train-lora-open small"), count ? count + " changed" : "");
    }

    function say(element, text) {
        if (element && element.textContent !== text) {
            element.textContent = text;
        }
    }

    function reset(name) {
        const field = find("#train_lora_reset_name textarea, #train_lora_reset_name input");
        field.value = name;
        field.dispatchEvent(new Event("input", {bubbles: true}));
        // gradio takes the field's value over in its own time.
        setTimeout(function() {
            find("#train_lora_reset").click();
        }, 50);
    }

    function openFold(id) {
        const fold = find("#" + id);
        const head = fold.querySelector(".label-wrap");
        if (!head.classList.contains("open")) {
            head.click();
        }
        fold.scrollIntoView({behavior: "smooth", block: "start"});
    }

    document.addEventListener("click", function(event) {
        const path = event.composedPath().filter(function(element) {
            return element instanceof HTMLElement;
        });
        const button = path.find(function(element) {
            return element.dataset.reset !== undefined;
        });
        if (button && find("#train_lora_page").contains(button)) {
            reset(button.dataset.reset);
        } else if (path.some((element) => element.dataset.fold !== undefined)) {
            openFold(path.find((element) => element.dataset.fold !== undefined).dataset.fold);
        } else if (path.some((element) => element.dataset.more !== undefined)) {
            const group = path.find((element) => element.classList.contains("train-lora-group"));
            group.dataset.open = group.dataset.open === "1" ? "0" : "1";
            update();
        }
    });
    ["input", "change"].forEach(function(kind) {
        document.addEventListener(kind, function(event) {
            if (event.composedPath().some((element) => element.id === "train_lora_page")) {
                update();
            }
        });
    });
    setInterval(update, MARK_MS);
})();
