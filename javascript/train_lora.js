// Asks how the run stands, by pressing a hidden button: it passes through gradio's own login and works in every version.
(function() {
    "use strict";

    const LIVE_MS = 1000;
    const IDLE_MS = 5000;
    const PATIENCE_MS = 10000;
    let asked = 0;
    let answered = "";
    let waiting = false;
    let tries = 1;
    let glances = 6;

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    function onScreen(element) {
        return element !== null && !document.hidden && find("#train_lora_steps").getClientRects().length > 0;
    }

    function markWrongFields() {
        find("#train_lora_steps").querySelectorAll("[id^=train_lora_]").forEach(function(field) {
            if (field.querySelector("input, textarea")) {
                field.classList.toggle("train-lora-wrong", field.textContent.includes("⚠"));
            }
        });
    }

    // After a reload the folder is filled in again: show what is in it. A folder that is being typed is left alone.
    function lookAgain() {
        const folder = find("#train_lora_train_data_dir textarea, #train_lora_train_data_dir input");
        if (folder.value && folder !== folder.getRootNode().activeElement && find("#train_lora_gallery .idle")) {
            glances = 0;
            find("#train_lora_look").click();
        }
    }

    function tick() {
        const button = find("#train_lora_refresh");
        if (!onScreen(button)) {
            return;
        }
        markWrongFields();
        if (glances > 0) {
            glances -= 1;
            lookAgain();
        }
        const now = Date.now();
        const mark = find("#train_lora_beat [data-beat]");
        const beat = mark ? mark.dataset.beat : "";
        const status = find("#train_lora_status [data-live]");
        const pause = status && status.dataset.live === "1" ? LIVE_MS : IDLE_MS;
        if (beat !== answered) {
            answered = beat;
            waiting = false;
            tries = 1;
        }
        // Without an answer, an overloaded or stopped server is asked ever more rarely.
        if (now - asked >= (waiting ? PATIENCE_MS * tries : pause)) {
            tries = waiting ? Math.min(tries * 2, 32) : 1;
            waiting = true;
            asked = now;
            button.click();
        }
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
