"""Pivotal tuning: gradients beside plain autograd, files, what is refused, and what the plan counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.attach import Adapter, new_adapter
from lib_trainer.adapter.embedding import TrainedEmbedding, bundled, spread
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.webui.embeddings import other_embedding, write_embeddings
from lib_trainer.lora.svd import Cut
from lib_trainer.lora.tools import Target, merge_into_checkpoint, merge_loras
from lib_trainer.memory.estimate import Savings, predict
from lib_trainer.models.families import FLUX, SD1, SDXL, Family
from lib_trainer.training.optimizer import parameter_groups
from lib_trainer.training.pivotal import check_word, new_embedding, require_unet
from lib_trainer.training.start import Start
from tests.host.tiny_pipelines import tiny_pipeline
from tests.memory.plans import work_of
from tests.training.small import one_layer_model, recipe_of, schedule_of

WORD = "jeff"
HOST = SimpleNamespace(word_problem=lambda word: "")


def embedding_of(*widths: int, count: int = 2) -> TrainedEmbedding:
    encoders = ("clip_l", "clip_g")[: len(widths)]
    vectors = {name: torch.randn(count, width) for name, width in zip(encoders, widths, strict=True)}
    return TrainedEmbedding(WORD, vectors)


def pivotal(**values: object) -> Recipe:
    return recipe_of(**{"num_vectors_per_token": 2, "token_string": WORD, **values})


def adapter_with(embedding: TrainedEmbedding | None) -> Adapter:
    adapter = new_adapter(one_layer_model().layers, recipe_of().adapter, 0)
    adapter.embedding = embedding
    return adapter


@pytest.fixture(scope="module", params=[SD1, SDXL], ids=lambda family: family.key)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(request.param, folder).save_pretrained(folder / "model")
    return StandaloneHost(folder, folder / "model")


def test_outputs_and_gradients_are_those_of_plain_autograd(host: StandaloneHost) -> None:
    with host.open_model() as model:
        rows = model.word_vectors("ab")
        vectors = {name: (row + 0.1).requires_grad_() for name, row in rows.items()}
        encoder = model.text_encoders[0].requires_grad_(False)
        with model.embeddings({WORD: vectors}):
            ours = model.encode_text([f"x {WORD} y"], 1, grad=True).context[..., : rows["clip_l"].shape[1]]
        ids = model.pipeline.tokenizer(["x ab y"], padding="max_length", max_length=77, return_tensors="pt")
        plain = vectors["clip_l"].detach().clone().requires_grad_()

        def put_in(_module: object, _inputs: object, rows: torch.Tensor) -> torch.Tensor:
            # Behind the start mark and the x.
            return torch.cat([rows[:, :2], plain[None], rows[:, 4:]], dim=1)

        hook = encoder.get_input_embeddings().register_forward_hook(put_in)
        hidden = encoder(ids["input_ids"], output_hidden_states=True).hidden_states
        hook.remove()
        inner = getattr(encoder, "text_model", encoder)
        wanted = hidden[-2] if model.family is SDXL else inner.final_layer_norm(hidden[-1])
        weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
        (ours * weight).sum().backward()
        (wanted * weight).sum().backward()
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-6)
    assert plain.grad.abs().max() > 0
    assert torch.allclose(vectors["clip_l"].grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_a_word_is_never_cut_in_two(host: StandaloneHost) -> None:
    with host.open_model() as model, torch.no_grad():
        vectors = spread(model.word_vectors("ab"), 4)
        letters = " ".join("x" * 73)
        with model.embeddings({WORD: vectors}):
            whole = model.encode_text([f"{letters} {WORD}"], 1).context
            again = model.encode_text([WORD], 1).context
    # Four vectors do not fit behind 73 letters: they begin the next 75.
    assert whole.shape[1] == 2 * 77
    assert torch.allclose(whole[:, 77:], again, atol=1e-5)


def test_the_standalone_host_draws_with_what_a_file_bundles(host: StandaloneHost) -> None:
    with host.open_model() as model:
        adapter = new_adapter(model.adaptable_layers(), recipe_of().adapter, 0)
        moved = {name: row + row.std() for name, row in spread(model.word_vectors("ab"), 2).items()}
        adapter.embedding = TrainedEmbedding(WORD, moved)
    host.lora_dir.mkdir(parents=True, exist_ok=True)
    save_adapter(host.lora_dir / "words.safetensors", adapter_tensors(adapter, "fp16"), {})

    def draw(prompt: str) -> bytes:
        request = GenerateRequest(prompt, width_px=64, height_px=64, steps=1, cfg_scale=1.0)
        return host.generate(request)[0].tobytes()

    with_tag = draw(f"a {WORD} <lora:words:1>")
    # ΔW is zero: only the word differs, and in full at any strength.
    assert with_tag != draw(f"a {WORD}") and with_tag == draw(f"a {WORD} <lora:words:0.5>")
    assert draw("a cat <lora:words:1>") == draw("a cat")


@pytest.mark.parametrize(("widths", "keys"), [((6,), ["string_to_param.*"]), ((6, 8), ["clip_l", "clip_g"])])
def test_files_have_the_names_that_webuis_read(tmp_path: Path, widths: tuple[int, ...], keys: list[str]) -> None:
    adapter = adapter_with(embedding_of(*widths))
    tensors = adapter_tensors(adapter, "fp16")
    assert {key for key in tensors if "emb" in key} == {f"bundle_emb.{WORD}.{key}" for key in keys}
    save_adapter(tmp_path / "a.safetensors", tensors, {})
    file = read_adapter(tmp_path / "a.safetensors")
    assert file.unmatched == () and list(file.factors) == ["lora_unet_conv"]
    for name, vectors in adapter.embedding.vectors.items():
        assert torch.equal(file.embeddings[WORD][name], vectors)


def test_what_is_bundled_and_no_embedding_of_ours_is_unmatched(tmp_path: Path) -> None:
    odd = {f"bundle_emb.{WORD}.t5": torch.zeros(2, 4), "bundle_emb.x.clip_l": torch.zeros(4)}
    uneven = bundled({"y": {"clip_l": torch.zeros(1, 4), "clip_g": torch.zeros(2, 4)}})
    save_adapter(tmp_path / "a.safetensors", adapter_tensors(adapter_with(embedding_of(4)), "fp16") | odd | uneven, {})
    file = read_adapter(tmp_path / "a.safetensors")
    assert set(file.unmatched) == {*odd, *uneven} and list(file.embeddings) == [WORD]


def test_it_has_a_rate_of_its_own() -> None:
    adapter = adapter_with(embedding_of(4, 6))
    for fused in (False, True):
        recipe = pivotal(embedding_lr=0.25, fused_backward_pass=fused)
        *others, group = parameter_groups(recipe, adapter)
        assert group["params"] == list(adapter.embedding.parameters()) and group["lr"] == 0.25
        assert sum(len(other["params"]) for other in others) == len(list(adapter.layers.parameters()))


def test_a_word_of_no_caption_or_of_another_embedding_is_refused() -> None:
    recipe = pivotal(token_string="", trigger_word="word")
    scan = schedule_of(recipe).scan
    check_word(recipe, scan, Start(), HOST)
    taken = SimpleNamespace(word_problem=lambda word: f"the embedding {word}.pt has that name")
    for values, host, said in (
        ({"token_string": "words"}, HOST, "no caption holds the word 'words'"),
        ({"token_string": "", "trigger_word": ""}, HOST, "name the word"),
        ({"token_string": "", "trigger_word": "a, b"}, HOST, "leave out dots, commas"),
        ({"trigger_word": "word", "token_string": ""}, taken, "word.pt has that name"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            check_word(recipe.with_values(values), scan, Start(), host)
        assert list(caught.value.problems) == ["token_string"]
    with pytest.raises(ConfigError, match="token_string"):
        pivotal(token_string="a.b").check(needs_name=False)


def test_transformers_have_none() -> None:
    with pytest.raises(ConfigError, match=r"num_vectors_per_token: Flux\.1 has no embeddings"):
        require_unet(pivotal(), SimpleNamespace(family=FLUX))
    require_unet(recipe_of(), SimpleNamespace(family=FLUX))


def test_a_lora_goes_on_with_its_own_embedding_alone(tmp_path: Path) -> None:
    adapter = adapter_with(embedding_of(4))
    save_adapter(tmp_path / "old.safetensors", adapter_tensors(adapter, "fp32"), {})
    start = Start(continued=("old", read_adapter(tmp_path / "old.safetensors")))
    model = SimpleNamespace(word_vectors=lambda text: {"clip_l": torch.zeros(1, 4)})
    begun = new_embedding(pivotal(), model, start)
    assert torch.equal(begun.vectors["clip_l"], adapter.embedding.vectors["clip_l"])
    for values in ({"num_vectors_per_token": 0}, {"num_vectors_per_token": 3}, {"token_string": "other"}):
        with pytest.raises(UserError, match=r"bundles an embedding for jeff \(2 vectors\), which this run would lose"):
            recipe = pivotal(**values)
            start.check_embeddings(recipe.embedding, recipe.embedding.token_string)
    frozen = Start(frozen=(("style", start.continued[1], 1.0),))
    with pytest.raises(UserError, match="style, which stays as it is, bundles an embedding for jeff"):
        frozen.check_embeddings(pivotal().embedding, WORD)
    wider = SimpleNamespace(word_vectors=lambda text: {"clip_l": torch.zeros(1, 8)})
    with pytest.raises(UserError, match="does not fit this checkpoint"):
        new_embedding(pivotal(), wider, start)


@pytest.mark.parametrize("family", [SD1, SDXL])
def test_the_plan_counts_vectors_and_keeps_the_encoders(family: Family) -> None:
    savings = Savings(0, False, False, 0.0, "AdamW", 1)
    work = replace(work_of(family), optimizer="AdamW")
    with_it = replace(work, recipe=work.recipe.with_values({"num_vectors_per_token": 2}))
    plain, ours = predict(work, savings), predict(with_it, savings)
    numbers = 2 * sum(width for width, _ in family.text_encoders)
    assert ours.adapter - plain.adapter == 4 * numbers and ours.optimizer - plain.optimizer == 8 * numbers
    encoders = sum(12 * width * width * layers for width, layers in family.text_encoders)
    assert ours.base - plain.base > 2 * encoders and ours.activations > plain.activations


def test_tools_keep_it_or_say_that_they_cannot(tmp_path: Path) -> None:
    first, second, resized, merged = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "resized", "merged"))
    embedding = embedding_of(4)
    save_adapter(first, adapter_tensors(adapter_with(embedding), "fp32"), {})
    save_adapter(second, adapter_tensors(adapter_with(None), "fp32"), {})
    for loras, path in (([(first, 1.0)], resized), ([(second, 0.5), (first, 0.5)], merged)):
        found = merge_loras(loras, Target(path), Cut(rank=2), "fp16").embeddings
        assert torch.equal(found[WORD]["clip_l"], embedding.vectors["clip_l"])
    with pytest.raises(UserError, match="bundles an embedding for jeff, as another does"):
        merge_loras([(resized, 1.0), (first, 1.0)], Target(tmp_path / "c.safetensors"), Cut(), "fp16")
    with pytest.raises(UserError, match="which a checkpoint cannot hold"):
        merge_into_checkpoint(tmp_path / "big.safetensors", [(first, 1.0)], Target(tmp_path / "c.safetensors"))


def test_embeddings_of_others_stay_in_their_folder(tmp_path: Path) -> None:
    """For WebUIs that do not look into LoRA files."""
    folder, lora = tmp_path / "embeddings", tmp_path / "jeff_lora.safetensors"
    embedding = embedding_of(4, 6)
    save_adapter(lora, adapter_tensors(adapter_with(embedding), "fp16"), {})
    assert write_embeddings(lora, folder) == [folder / "jeff.safetensors"] == write_embeddings(lora, folder)
    written = load_file(folder / "jeff.safetensors")
    assert written.keys() == {"clip_l", "clip_g"} and torch.equal(written["clip_g"], embedding.vectors["clip_g"])
    assert other_embedding(folder, WORD) is None
    save_file({"emb_params": torch.zeros(1, 4)}, folder / "Jeff.safetensors")
    (folder / "jeff.safetensors").unlink()
    assert other_embedding(folder, WORD) == folder / "Jeff.safetensors"
    save_file({"emb_params": torch.zeros(1, 4)}, folder / "jeff.safetensors")
    assert write_embeddings(lora, folder) == []


def test_a_word_that_names_another_folder_is_written_nowhere(tmp_path: Path) -> None:
    """LoRA files are anybody's, and the word becomes a file's name."""
    folder, lora = tmp_path / "deep" / "embeddings", tmp_path / "theirs.safetensors"
    words = (f"{tmp_path}/outside", "sub/word", "sub\\word")
    save_file({f"bundle_emb.{word}.string_to_param.*": torch.zeros(1, 4) for word in words}, lora)
    assert write_embeddings(lora, folder) == []
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["theirs.safetensors"]
