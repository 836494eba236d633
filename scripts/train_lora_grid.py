"""The strength grid in txt2img's list of scripts."""

from modules import scripts

# A1111 knows the extension's folder only while this file runs; what is imported from the package later needs it there.
import lib_trainer  # noqa: F401


class StrengthGrid(scripts.Script):
    def title(self):
        return "LoRA strength grid"

    def show(self, is_img2img):
        # Imported late, here and below: the WebUI runs this file before it has started.
        from lib_trainer.host.detect import is_supported

        return not is_img2img and is_supported()

    def ui(self, _is_img2img):
        from lib_trainer.app import host_and_jobs
        from lib_trainer.ui.txt2img_script import place_script

        return place_script(host_and_jobs()[0])

    def run(self, p, *values):
        from lib_trainer.app import host_and_jobs
        from lib_trainer.host.webui.script import draw_each, result_of, seeds_of
        from lib_trainer.host.webui.txt2img import label_font
        from lib_trainer.preview.drawing import Drawn
        from lib_trainer.preview.grid_image import compose_grid, grid_infotext
        from lib_trainer.preview.picture_file import PictureFolder
        from lib_trainer.ui.txt2img_script import plan_script

        plan = plan_script(host_and_jobs()[0], p.prompt, seeds_of(p), *values)
        wanted = [(cell.request.prompt, cell.request.seed) for cell in plan.cells]
        folder = PictureFolder()
        drawn = [Drawn(plan.cells[i], folder.keep(picture), text) for i, picture, text in draw_each(p, wanted)]
        grid = compose_grid(plan, drawn, label_font()) if drawn else None
        infotext = grid_infotext(plan, drawn) if drawn else ""
        return result_of(p, grid, infotext, [(item.picture, item.infotext) for item in drawn])
