"""``lm_keep_headers``: response headers that are recorded."""


def test_only_named_headers_are_recorded(suite):
    """Replay gives the headers that the setting names; a cassette has none by default."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            answer = litellm.completion(messages=said("hello"), **SETTINGS)
            print("headers:", sorted(answer._hidden_params["additional_headers"]))
    """)
    suite.record()
    suite.run("-s").stdout.fnmatch_lines(["*headers: [[][]]*"])
    suite.file("pytest.ini", "[pytest]\nlm_keep_headers = content-type\n")
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    suite.run("-s").stdout.fnmatch_lines(["*headers: [[]'llm_provider-content-type'[]]*"])
    assert "content-type" in (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
