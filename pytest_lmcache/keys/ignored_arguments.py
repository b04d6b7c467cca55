"""The arguments of LiteLLM's functions that are no part of a key."""

from __future__ import annotations

import re
from functools import cache

from pytest_lmcache.redact import is_secret_name

IGNORED_ARGUMENTS = frozenset(
    """
    api_base api_key api_type api_version base_url bucket_name client client_id
    organization provider_affinity_header region_name secret_fields tenant_id use_client use_xai_oauth
    default_headers extra_headers headers provider_specific_header
    http_client shared_session ssl_verify use_in_pass_through use_litellm_proxy rust self model_config

    completion_call_id id metadata proxy_server_request tags tag_regex user_api_key_dict
    callbacks logger_fn no-log turn_off_message_logging verbose log_client_error_tracebacks
    arize_space_id weave_project_id

    client_side_timeout force_timeout keepalive_seconds allow_client_keepalive_override request_timeout
    stream_timeout stream_timeout_by_service_tier timeout timeout_by_service_tier
    max_retries num_retries retry_policy retry_strategy
    attempted_targets context_window_fallback_dict fallback_depth fallbacks max_fallbacks

    allowed_model_region cooldown_time default_api_key_rpm_limit default_api_key_tpm_limit
    budget_duration max_budget max_parallel_requests itpm otpm rpm tpm order weight
    enable_tag_filtering fastest_response model_info model_list routing_strategy silent_model
    specific_deployment

    cache cache_key caching caching_groups preset_cache_key ttl enable_prompt_caching
    cache_control_injection_points
    base_model bedrock_tags data_residency output_vector_size tiered_pricing
    configurable_clientside_auth_params enable_json_schema_validation

    chatgpt_auth_file github_copilot_auth_type github_copilot_host github_copilot_user_session
    token_exchange_audience token_exchange_endpoint token_exchange_profile token_exchange_scope
    kubernetes_pod_discovery switchyard_router_config daily_reset_time rpd tpd fedramp_uplift_multiplier

    acompletion aembedding aimg_generation allm_passthrough_route arerank aresponses aspeech async_call
    atext_completion atranscription
    """.split()
)
"""Where a call goes, who pays for it, how often it is tried, and what is logged.

Source: the arguments that reach LiteLLM's functions, plain and through a Router, and its ``all_litellm_params``.
``is_ignored`` adds the names that follow a pattern.
"""

_OF_PROVIDER = frozenset(
    """
    api_base api_key api_type api_version base_url client client_id custom_llm_provider organization region_name
    tenant_id http_client shared_session default_headers extra_headers headers provider_specific_header
    """.split()
)
_OF_PROVIDER_PATTERN = re.compile(
    r"(?:aws|azure|vertex|watsonx)_.*|(?:anthropic|openai)_(?:.*_)?(?:identity|account|issuer|federation)_.*"
    r"|(?:.*_)?(?:token|api_key|api_base|access_key|access_key_id|credentials|password|secret|secret_key)"
)
_IGNORED_PATTERN = re.compile(
    r"_.*"
    r"|litellm_.*"
    r"|(?:arize|aws|azure|dd|gcs|langfuse|langsmith|newrelic|posthog|s3|signoz|valkey|vertex|watsonx)_.*"
    r"|anthropic_(?:disable_workload|federation|identity|issuer|keycloak|organization|service_account)_.*"
    r"|openai_(?:identity|service_account)_.*"
    r"|.*_(?:api_key|api_base|access_key|access_key_id|credentials|password|secret|secret_key)"
    r"|(?:.*_)?cost_per_.*|.*_token_cost(?:_.*)?|regional_.*_uplift_multiplier.*"
    r"|(?:adaptive|auto|complexity|quality)_router_.*"
    r"|.*_fallbacks|.*_callbacks?"
    r"|prompt_cache_.*"
)


@cache
def is_ignored(argument: str) -> bool:
    """Whether an argument of this name is left out of requests; never ``mock_…``: the interception decides on mocked calls."""
    if argument in IGNORED_ARGUMENTS:
        return True
    if argument == "litellm_system_prompt" or argument.startswith("mock_"):
        return False
    if _IGNORED_PATTERN.fullmatch(argument) is not None:
        return True
    # A name such as stop_token is a word of the model's.
    return argument.endswith("_token") and is_secret_name(argument)


def belongs_to_provider(argument: str) -> bool:
    """Whether an argument says where a provider is, or who asks it: another provider must not get it."""
    return argument in _OF_PROVIDER or (
        is_ignored(argument) and _OF_PROVIDER_PATTERN.fullmatch(argument) is not None
    )
