// Captions by a machine, in Captions & crops: what can caption here, its progress, and its stop.
(function() {
    "use strict";

    const ASK_MS = 700;
    const MORE = "More: a tagger's .onnx file with its list of tags (.csv) in the models folder, or the WD14 tagger extension.";
    let timer = null;

    function kit() {
        return window.trainLoraWorkbench;
    }

    function part(selector) {
        return kit().bench().querySelector(".auto " + selector);
    }

    function show(state) {
        const choice = part("[data-auto=captioner]");
        if (choice.options.length !== state.captioners.length) {
            choice.replaceChildren(...state.captioners.map(label => kit().make("option", label, {value: label})));
        }
        const none = state.captioners.length === 0;
        choice.hidden = none;
        part("[data-do=auto]").disabled = state.running || none;
        part("[data-do=autoStop]").hidden = !state.running;
        part(".progress").textContent = state.running ? state.done + " of " + state.total + " …" : state.message || MORE;
    }

    function ask() {
        return kit().read("/captioning").then(function(state) {
            show(state);
            clearTimeout(timer);
            if (state.running) {
                timer = setTimeout(ask, ASK_MS);
            }
            return state;
        }).catch(function(error) {
            kit().say(error.message, true);
        });
    }

    function value(name) {
        const input = part("[data-auto=" + name + "]");
        return input.type === "checkbox" ? input.checked : input.type === "number" ? Number(input.value) : input.value;
    }

    function follow() {
        ask().then(function(state) {
            if (state && state.running) {
                setTimeout(follow, ASK_MS);
            } else {
                // What it wrote is on the disk: the list shows it, and Undo takes it back.
                kit().load();
                kit().bench().querySelector("[data-do=undo]").disabled = false;
            }
        });
    }

    Object.assign(window.trainLoraWorkbenchActions, {
        auto: function() {
            const command = {do: "auto"};
            ["captioner", "prefix", "postfix", "exclude", "threshold", "only_missing"].forEach(function(name) {
                command[name] = value(name);
            });
            command.prefix = command.prefix || kit().state.word;
            kit().change(command).then(follow).catch(function() {});
        },
        autoStop: function() {
            kit().change({do: "auto_stop"}).catch(function() {});
        },
    });

    document.addEventListener("toggle", function(event) {
        const box = event.composedPath()[0];
        if (box instanceof HTMLElement && box.matches(".train-lora-workbench .auto") && box.open) {
            ask();
        }
    }, true);
})();
