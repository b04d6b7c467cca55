"""What is not recorded of LiteLLM's public functions, and why: those that ask nobody, that call others, that are refused.

`entry_points` has the recorded ones. A test walks the installed LiteLLM: each public function is in one of the tables.
"""

from __future__ import annotations

COMPOSED = frozenset(
    """
    aadapter_completion aadapter_generate_content acompletion_with_retries adapter_completion ahealth_check
    aresponses_api_with_mcp aresponses_with_retries arun_thread_stream arun_tool_loop
    async_completion_with_fallbacks batch_completion batch_completion_models batch_completion_models_all_responses
    completion_with_fallbacks completion_with_retries compress config_completion get_valid_models
    maybe_run_chat_completion_agentic_loop responses_with_retries run_thread_stream run_tool_loop
    """.split()
)
"""They call entry points, whose calls are recorded or refused one by one."""

OF_ONE_PROVIDER = frozenset(
    """
    anthropic_messages_handler call_with_native_output_fallback custom_chat_llm_router nlp_cloud_chat_completion
    replicate_chat_completion
    """.split()
)
"""LiteLLM's code for one provider, which its entry points call; it is not for users."""

AROUND = frozenset(
    "get_azure_credentials get_model_cost_map get_model_info get_secret get_secret_bool get_secret_str".split()
)
"""They may ask a store of secrets, a price list or a local server, but no model: they pass."""

LOCAL = frozenset(
    """
    completion_cost get_first_chars_messages register_model response_cost_calculator
    add_known_models add_provider_affinity_header add_provider_specific_params_to_optional_params
    add_system_prompt_to_messages admission_input_tokens admitted_prompt_token_counter as_str_mapping
    async_mock_completion_streaming_obj asyncify azure_anthropic_messages_url bedrock_mantle_chat_config
    bedrock_route_for_request bedrock_strict_tools_fallback bill_first_round_on_failure bridge_reasoning_effort
    build_code_interpreter_log_outputs build_openai_client calculate_request_duration check_dynamic_azure_params
    client close_litellm_async_clients convert_file_document_to_url_document convert_model_response_to_streaming
    convert_to_model_response_object create_health_check_response create_pretrained_tokenizer create_tokenizer
    custom_prompt declared_authenticating_provider decode_video_id_with_provider deployment_model_info
    disable_cache drop_params_env_flag drops_unsupported_params enable_cache ensure_api_route exception_type
    filter_out_litellm_params flatten_form_field_values for_bedrock_json_tool_retry function_call_prompt
    get_api_key get_api_key_from_env get_audio_file_for_health_check get_completion_messages
    get_configured_request_timeout get_content_from_model_response get_hidden_params get_litellm_gateway_api_key
    get_litellm_params get_llm_provider get_mime_type get_non_default_completion_params
    get_non_default_transcription_params get_openai_credentials get_optional_params
    get_optional_params_add_message get_optional_params_embeddings get_optional_params_image_gen
    get_optional_params_transcription get_optional_rerank_params get_provider_affinity_header
    get_requester_metadata get_standard_openai_params get_vertex_ai_model_route header_auth_params
    holds_api_key_secret_reference holds_secret_pointer http2_enabled identify
    invalid_provider_routing_hints_message is_bedrock_pricing_only_model is_claude_tool_target
    is_decisions_model_mode is_explicitly_disabled_factory is_hidden_as_retired is_openai_finetune_model
    is_resent_failure is_xai_batch_results_id map_system_message_pt mark_litellm_import_complete
    may_name_litellm_mcp_gateway messages_have_pdf_file_part messages_without_pdf_file_parts mock_completion
    mock_completion_streaming_obj mock_embedding mock_image_generation mock_response mock_responses_api_response
    model_group_from_metadata normalize_drop_params ollama_pt parse_control_options parse_daily_reset_time
    peek_reasoning_summary_aliases per_call_model_info pre_process_non_default_params print_verbose
    prompt_factory raise_if_allowed_tools_tool_choice_unsupported raise_if_hosted_tool_choice_unsupported
    read_config_args reasoning_effort_needs_allowing reasoning_effort_with_summary_alias redact_string
    reject_server_owned_wif_fields reject_server_owned_wif_params replayable_responses_input
    replayable_responses_item resolve_chat_reasoning resolve_openai_workload_identity_config
    responses_api_bridge_check run_async_function rust safe_deep_copy server_owned_wif_fields_named
    server_owned_wif_fields_present server_owned_wif_fields_written set_global_bitbucket_config
    set_global_gitlab_config should_run_mock_completion str_keyed_mapping stream_chunk_builder
    stream_chunk_builder_text_completion stringify_json_tool_call_content
    strip_reasoning_summary_aliases_from_optional_params supports_httpx_timeout supports_pdf_input token_counter
    turn_on_debug turn_on_json update_cache update_messages_with_model_file_ids
    update_responses_input_with_model_file_ids update_responses_tools_with_model_file_ids
    validate_and_fix_openai_messages validate_and_fix_openai_tools validate_and_fix_thinking_param
    validate_anthropic_api_metadata validate_chat_completion_tool_choice validate_litellm_params_strictly
    validate_openai_optional_params validate_provider_affinity_header_name with_attribution_headers
    with_control_options with_service_target without_bedrock_route_prefix
    """.split()
)
"""They ask nobody."""

_NOT_YET = "it is not recorded yet"
_STAYS_OPEN = "its connection stays open, and both sides send when they like"
_REASONS = {
    _STAYS_OPEN: "realtime_health_check a2a_protocol.asend_message_streaming a2a_protocol.create_a2a_client",
    "a secret that is good for one session makes no answer for the next": """
        acreate_realtime_client_secret acreate_realtime_translation_client_secret
        acreate_realtime_transcription_session arealtime_calls arealtime_translation_calls
    """,
    "it runs code in a sandbox, which keeps its state": """
        acode_interpreter_tool acreate_sandbox adelete_sandbox arun_code
    """,
    "it passes on HTTP, of which LiteLLM knows nothing": "allm_passthrough_route llm_passthrough_route",
    "it gives a response of HTTP that is read while it arrives": "file_content_streaming",
    "OpenAI has ended the Assistants API": """
        a_add_message acreate_assistants acreate_thread add_message adelete_assistant aget_assistants aget_messages
        aget_thread arun_thread create_assistants create_thread delete_assistant get_assistants get_messages
        get_thread run_thread
    """,
    _NOT_YET: """
        acancel_eval acancel_run acreate acreate_agent acreate_container acreate_eval acreate_run acreate_skill
        adecisions adelete_agent adelete_container adelete_eval adelete_run adelete_skill aextraction aget_agent
        aget_eval aget_run aget_skill aingest alist_agent_versions alist_agents alist_container_files
        alist_containers alist_evals alist_runs alist_skills aquery aretrieve_container asystemone aupdate_eval
        aupload_container_file avideo_content avideo_create_character avideo_edit avideo_extension
        avideo_generation avideo_get_character avideo_list avideo_remix avideo_status cancel_eval cancel_run
        create_agent create_container create_eval create_run create_skill decisions delete_agent
        delete_container delete_eval delete_run delete_skill extraction get_agent get_eval get_run get_skill
        ingest list_agent_versions list_agents list_container_files list_containers list_evals list_runs
        list_skills query retrieve_container systemone update_eval upload_container_file video_content
        video_create_character video_edit video_extension video_generation video_get_character video_list
        video_remix video_status
    """,
}
REASONS = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Why a function is refused on replay, by the name under which users know it."""
