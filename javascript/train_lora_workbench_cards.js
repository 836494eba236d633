// The pictures of Captions & crops: one card each, with its caption, which is saved as it is typed, and its crop.
(function() {
    "use strict";

    const SAVE_MS = 700;
    const kit = window.trainLoraWorkbench;

    function card(picture) {
        const element = kit.make("article", "", {"data-number": picture.number});
        const frame = kit.make("div", "", {class: "frame"});
        const address = kit.ROUTES + kit.state.key + "/pictures/" + picture.number + "?key=" + encodeURIComponent(kit.pageKey());
        frame.append(kit.make("img", "", {src: address, alt: picture.name, loading: "lazy", draggable: "false"}), kit.make("i", "", {class: "crop"}));
        const side = kit.make("div", "", {class: "side"});
        const text = kit.make("textarea", "", {rows: "4", spellcheck: "false", "aria-label": "Caption of " + picture.name});
        side.append(kit.make("b", picture.name, {title: picture.folder + "/" + picture.name}), text, kit.make("p", "", {class: "state"}));
        const buttons = kit.make("div", "", {class: "buttons"});
        buttons.append(kit.make("button", "Exclude", {type: "button", "data-do": "exclude"}), kit.make("button", "Whole picture", {type: "button", "data-do": "whole"}));
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
        const next = (picture.chunks || []).map(words => "“" + words + "”").join(", ");
        const where = next ? "; the next from " + next : "";
        return picture.tokens + (picture.tokens === 1 ? " token" : " tokens") + (chunks > 1 ? " in " + chunks + " chunks of 75" + where : "");
    }

    function showChanged(picture) {
        kit.bench().querySelectorAll("[data-number='" + picture.number + "']").forEach(element => show(element, picture));
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
        kit.change({do: "caption", number: element.picture.number, text: text, version: element.picture.version})
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
        const keep = kit.make("button", "Keep mine", {type: "button"});
        const take = kit.make("button", "Take theirs", {type: "button"});
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

    Object.assign(kit, {card, showChanged, typed, save, drawCrop});
})();
