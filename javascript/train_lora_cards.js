// Shows a new file among the LoRA cards. The WebUI's cards know it only after their own refresh, which keeps tab and
// search as they are: it is pressed once, where the file's card is missing.
(function() {
    "use strict";

    const CHECK_MS = 500;
    const asked = {txt2img: "", img2img: ""};
    let saved = "";
    let pointed = [];

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    function refresh(tab) {
        const cards = find("#" + tab + "_lora_cards");
        const button = find("#" + tab + "_lora_extra_refresh");
        // Nothing moves under the pointer of somebody who is choosing a card.
        if (!cards || !button || asked[tab] === saved || pointed.includes(cards)) {
            return;
        }
        asked[tab] = saved;
        if (saved && !cards.querySelector(".card[data-name='" + CSS.escape(saved) + "']")) {
            button.click();
        }
    }

    // The name of the file of the run that has ended; "" during a run.
    document.addEventListener("train-lora-saved", function(event) {
        saved = event.detail;
    });
    document.addEventListener("mousemove", function(event) {
        pointed = event.composedPath();
    });
    document.documentElement.addEventListener("mouseleave", function() {
        pointed = [];
    });
    setInterval(function() {
        Object.keys(asked).forEach(refresh);
    }, CHECK_MS);
})();
