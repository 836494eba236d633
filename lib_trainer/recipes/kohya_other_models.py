"""Fields of kohya_ss that only models of other kinds have. Every file of kohya_ss holds them all."""

from __future__ import annotations

_FLUX = (
    "flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk model_type ae clip_l t5xxl t5xxl_lr"
    " split_mode train_blocks t5xxl_max_token_length"
    " enable_all_linear mem_eff_save apply_t5_attn_mask split_qkv train_t5xxl fp8_base_unet"
    " cpu_offload_checkpointing blocks_to_swap single_blocks_to_swap double_blocks_to_swap show_timesteps"
    " show_timesteps_resolution img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim"
    " single_mod_dim in_dims train_double_block_indices train_single_block_indices"
)
_SD3 = (
    "sd3_cache_text_encoder_outputs sd3_cache_text_encoder_outputs_to_disk sd3_fused_backward_pass clip_g"
    " clip_g_dropout_rate sd3_clip_l sd3_clip_l_dropout_rate sd3_disable_mmap_load_safetensors"
    " sd3_enable_scaled_pos_embed logit_mean logit_std mode_scale pos_emb_random_crop_rate save_clip save_t5xxl"
    " sd3_t5_dropout_rate sd3_t5xxl t5xxl_device t5xxl_dtype sd3_text_encoder_batch_size weighting_scheme"
)
_HUNYUAN = (
    "hunyuan_image_cache_text_encoder_outputs hunyuan_image_cache_text_encoder_outputs_to_disk hunyuan_text_encoder"
    " hunyuan_byt5 hunyuan_vae hunyuan_discrete_flow_shift hunyuan_model_prediction_type hunyuan_timestep_sampling"
    " hunyuan_sigmoid_scale hunyuan_attn_mode hunyuan_split_attn hunyuan_fp8_scaled hunyuan_fp8_vl"
    " hunyuan_text_encoder_cpu hunyuan_vae_chunk_size"
)
_ANIMA = (
    "anima_cache_text_encoder_outputs anima_cache_text_encoder_outputs_to_disk anima_qwen3 anima_vae"
    " anima_llm_adapter_path anima_t5_tokenizer_path anima_discrete_flow_shift anima_timestep_sampling"
    " anima_sigmoid_scale anima_qwen3_max_token_length anima_t5_max_token_length anima_attn_mode anima_split_attn"
    " anima_vae_chunk_size anima_vae_disable_cache anima_unsloth_offload_checkpointing anima_qwen_image_vae_2d"
    " anima_compile anima_torch_compile anima_compile_backend anima_compile_mode anima_compile_dynamic"
    " anima_compile_fullgraph anima_compile_cache_size_limit"
)
_LUMINA = (
    "lumina_cache_text_encoder_outputs lumina_cache_text_encoder_outputs_to_disk lumina_gemma2 lumina_ae"
    " lumina_discrete_flow_shift lumina_model_prediction_type lumina_timestep_sampling lumina_sigmoid_scale"
    " lumina_gemma2_max_token_length lumina_system_prompt lumina_use_flash_attn lumina_use_sage_attn"
)
_MODELS = {
    "FLUX.1": (_FLUX, "flux1_checkbox"),
    "Stable Diffusion 3": (_SD3, "sd3_checkbox"),
    "HunyuanImage": (_HUNYUAN, "hunyuan_image_checkbox"),
    "Anima": (_ANIMA, "anima_checkbox"),
    "Lumina": (_LUMINA, "lumina_checkbox"),
}
# field -> why it is not used
OTHER_MODELS = {name: f"only {model} has it" for model, (names, _) in _MODELS.items() for name in names.split()}
# checkbox that says which model the file is for -> the model
MODEL_CHECKBOXES = {checkbox: model for model, (_, checkbox) in _MODELS.items()}
