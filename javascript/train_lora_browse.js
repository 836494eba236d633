// The folders below the one that is named in step 1: a click names it, and lists what is in it.
(function() {
    "use strict";

    const FIELD = "#train_lora_train_data_dir textarea, #train_lora_train_data_dir input";
    const ROUTE = "./train-lora/v1/folders?path=";

    function kit() {
        return window.trainLoraWorkbench;
    }

    function ask(path) {
        return fetch(ROUTE + encodeURIComponent(path), {headers: {"X-Train-Lora-Key": kit().pageKey()}, cache: "no-store"})
            .then(function(answer) {
                return answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText));
            });
    }

    function button(text, path) {
        return kit().make("button", text, {type: "button", "data-folder": path});
    }

    function show(found) {
        const list = kit().find(".train-lora-browse div");
        const up = found.above ? [button("↑ " + found.above, found.above)] : [];
        list.replaceChildren(...up, ...found.folders.map(folder => button(folder.name, folder.path)));
        if (!list.children.length) {
            list.textContent = "There is no folder in it.";
        }
    }

    // What is typed may be wrong: then it begins where one may begin.
    function list(path) {
        return ask(path).catch(() => ask("")).then(show).catch(function(error) {
            kit().find(".train-lora-browse div").textContent = error.message;
        });
    }

    document.addEventListener("toggle", function(event) {
        const box = event.composedPath()[0];
        if (box instanceof HTMLElement && box.matches(".train-lora-browse") && box.open) {
            list(kit().find(FIELD).value);
        }
    }, true);

    document.addEventListener("click", function(event) {
        const chosen = event.composedPath().find(item => item instanceof HTMLElement && item.matches(".train-lora-browse [data-folder]"));
        if (chosen) {
            const field = kit().find(FIELD);
            field.value = chosen.dataset.folder;
            field.dispatchEvent(new Event("input", {bubbles: true}));
            list(field.value);
        }
    });
})();
