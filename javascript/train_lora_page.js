// What follows by itself: the line at the top and the memory bar follow the checkpoint, complaints follow the inputs.
(function() {
    "use strict";

    const CHECK_MS = 300;
    const FIELDS = ".form > [id^=train_lora_]";
    let saved = "";
    let checking = 0;

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    function press(id) {
        const button = find("#" + id);
        if (button) {
            button.click();
        }
    }

    // Free memory, the last part, changes all the time.
    function checkpointOf(text) {
        return text.split(" · ").slice(0, -1).join(" · ");
    }

    document.addEventListener("train-lora-head", function(event) {
        const line = find("#train_lora_head .train-lora-head");
        if (!line || line.textContent === event.detail) {
            return;
        }
        const isOther = checkpointOf(line.textContent) !== checkpointOf(event.detail);
        line.textContent = event.detail;
        if (isOther) {
            press("train_lora_follow");
            press("train_lora_grid_reload");
        }
    });

    // A run that is over has given its memory back.
    document.addEventListener("train-lora-saved", function(event) {
        if (event.detail && event.detail !== saved) {
            press("train_lora_follow");
        }
        saved = event.detail;
    });

    function isWrong(field) {
        return field.textContent.includes("⚠");
    }

    // Inputs alone: the panels around them hold a ⚠ as well when pictures are small.
    function markWrongFields() {
        const page = find("#train_lora_page");
        if (page && page.getClientRects().length > 0) {
            page.querySelectorAll(FIELDS).forEach(function(field) {
                field.classList.toggle("train-lora-wrong", isWrong(field));
            });
        }
    }

    // After Train every complaint is of the inputs as they are, and correcting one may settle another. What is said of
    // a recipe file stays until its own input is touched.
    function check(touched) {
        const wrong = Array.from(find("#train_lora_page").querySelectorAll(FIELDS)).filter(isWrong);
        const isStarted = find("#train_lora_message .train-lora-error") !== null;
        const names = wrong.filter((field) => isStarted || field === touched).map((field) => field.id.slice("train_lora_".length));
        if (names.length === 0) {
            return;
        }
        const field = find("#train_lora_check_names textarea, #train_lora_check_names input");
        field.value = names.join(" ");
        field.dispatchEvent(new Event("input", {bubbles: true}));
        // gradio takes the field's value over in its own time.
        setTimeout(press, 50, "train_lora_check");
    }

    ["change", "focusout"].forEach(function(kind) {
        document.addEventListener(kind, function(event) {
            const touched = event.composedPath().find((element) => element instanceof HTMLElement && element.matches(FIELDS));
            if (touched) {
                clearTimeout(checking);
                checking = setTimeout(check, CHECK_MS, touched);
            }
        });
    });
    setInterval(markWrongFields, 500);
})();
