"""The strength grid in txt2img's list of scripts."""

from modules import scripts

# A1111 knows the extension's folder only while this file runs; what is imported from the package later needs it there.
import lib_trainer  # noqa: F401


class StrengthGrid(scripts.Script):
    def title(self):
        return "LoRA strength grid"

    def show(self, is_img2img):
        return not is_img2img

    def ui(self, _is_img2img):
        # Imported late: the WebUI runs this file before its own start is through.
        from lib_trainer.ui.script import place_script

        return place_script()

    def run(self, p, *values):
        from lib_trainer.host.webui_pictures import label_font
        from lib_trainer.host.webui_script import draw_each, hand_back, seeds_of
        from lib_trainer.preview.drawing import Drawn
        from lib_trainer.preview.grid import compose_grid, grid_infotext
        from lib_trainer.ui.script import plan_script

        plan = plan_script(p.prompt, seeds_of(p), *values)
        wanted = [(cell.request.prompt, cell.request.seed) for cell in plan.cells]
        drawn = [Drawn(plan.cells[place], picture, text) for place, picture, text in draw_each(p, wanted)]
        grid = compose_grid(plan, drawn, label_font()) if drawn else None
        infotext = grid_infotext(plan, drawn) if drawn else ""
        return hand_back(p, grid, infotext, [(item.picture, item.infotext) for item in drawn])
