// The grid of step 4: asks for its progress while it is drawn, opens the picture that is clicked, and lists the new
// file when a run is over. It presses hidden buttons, which pass through gradio's own login in every version.
(function() {
    "use strict";

    const LIVE_MS = 700;
    const PATIENCE_MS = 10000;
    let asked = 0;
    let answered = "";
    let waiting = false;
    let finished = null;

    function find(selector) {
        const app = document.querySelector("gradio-app");
        return ((app && app.shadowRoot) || document).querySelector(selector);
    }

    // A run that ended since the page was opened has a new file to try.
    function listNewFile() {
        const result = find("#train_lora_status .train-lora-copy");
        // With the run: a second training of one name has the same tag.
        const tag = result ? result.dataset.run + result.dataset.copy : "";
        if (finished !== null && tag && tag !== finished) {
            find("#train_lora_grid_reload").click();
        }
        finished = tag;
    }

    function tick() {
        const button = find("#train_lora_grid_refresh");
        if (!button || document.hidden) {
            return;
        }
        listNewFile();
        const grid = find("#train_lora_grid_view [data-live]");
        const mark = find("#train_lora_grid_heartbeat [data-heartbeat]");
        const heartbeat = mark ? mark.dataset.heartbeat : "";
        if (heartbeat !== answered) {
            answered = heartbeat;
            waiting = false;
        }
        const now = Date.now();
        if (grid && grid.dataset.live === "1" && now - asked >= (waiting ? PATIENCE_MS : LIVE_MS)) {
            waiting = true;
            asked = now;
            button.click();
        }
    }

    function openCell(cell) {
        const field = find("#train_lora_grid_cell textarea, #train_lora_grid_cell input");
        field.value = cell.dataset.cell;
        field.dispatchEvent(new Event("input", {bubbles: true}));
        find("#train_lora_grid_view").querySelectorAll("[data-cell]").forEach(function(other) {
            other.classList.toggle("chosen", other === cell);
        });
        // gradio takes the field's value over in its own time.
        setTimeout(function() {
            find("#train_lora_grid_open").click();
            setTimeout(bringIntoSight, 300, 50);
        }, 50);
    }

    // The picture opens below the grid, which may be longer than the window.
    function bringIntoSight(tries) {
        const group = find("#train_lora_cell");
        const picture = group && group.querySelector("img");
        if (picture && picture.complete && group.getClientRects().length > 0) {
            group.scrollIntoView({behavior: "smooth", block: "nearest"});
        } else if (tries > 0) {
            setTimeout(bringIntoSight, 100, tries - 1);
        }
    }

    // The WebUI changes its tab, and leaves the page where it was scrolled to.
    function followSending(tries) {
        const other = find("#tab_txt2img");
        if (other && other.getClientRects().length === 0 && tries > 0) {
            setTimeout(followSending, 100, tries - 1);
        } else if (other) {
            window.scrollTo(0, 0);
        } else {
            find("#train_lora_prompt").scrollIntoView({behavior: "smooth", block: "center"});
        }
    }

    document.addEventListener("click", function(event) {
        if (event.composedPath().includes(find("#train_lora_cell_send"))) {
            followSending(50);
        }
        const cell = event.composedPath().find(function(element) {
            return element instanceof HTMLElement && element.dataset.cell;
        });
        if (cell && find("#train_lora_grid_view").contains(cell)) {
            openCell(cell);
        }
    });
    setInterval(tick, LIVE_MS / 2);
})();
