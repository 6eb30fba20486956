"""Every setting of every verb with another value and what must differ by it, or the test that looks at its effect."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Typed(NamedTuple):
    """What a command did: exit code, standard output, standard error, and the folder that it wrote into."""

    code: int
    out: str
    err: str
    folder: Path


class Differs(NamedTuple):
    """Words that set the setting to another value, and what of the command must differ then."""

    words: list[str]
    looked_at: Callable[[Typed], Any]


def out(typed: Typed) -> Any:
    """Standard output of a command that worked."""
    assert typed.code == 0, typed.err
    return typed.out


NO_BF16 = "this processor has no bf16 arithmetic"


def figures(typed: Typed) -> Any:
    """The three figures of `evaluate --json`, or the reason for a refusal (bf16 where the processor has none)."""
    if typed.code == 3 and NO_BF16 in typed.err:
        return NO_BF16
    content = json.loads(out(typed))
    return [content[name] for name in ("loss", "perplexity", "bits_per_byte")]


def refused(typed: Typed) -> Any:
    """Whether the command was refused; a device is chosen for real only where there is one."""
    return typed.code


def weights(typed: Typed) -> Any:
    """The bytes of the trained weights, or the reason for a refusal (bf16 where the processor has none)."""
    if typed.code == 3 and NO_BF16 in typed.err:
        return NO_BF16
    assert typed.code == 0, typed.err
    return (typed.folder / "run/model.safetensors").read_bytes()


def run_json(*names: str) -> Callable[[Typed], Any]:
    """A value in run.json."""

    def value(typed: Typed) -> Any:
        assert typed.code == 0, typed.err
        found: Any = json.loads((typed.folder / "run/run.json").read_text(encoding="utf-8"))
        for name in names:
            found = found[name]
        return found

    return value


def lines_with(words: str) -> Callable[[Typed], Any]:
    """How many lines on standard error hold these words."""
    return lambda typed: (
        sum(words in line for line in typed.err.splitlines()) if typed.code == 0 else typed.err
    )


def data_path(typed: Typed) -> Any:
    """Which folders there are."""
    assert typed.code == 0, typed.err
    return sorted(path.name for path in typed.folder.iterdir())


def columns(name: str) -> Callable[[Typed], Any]:
    """A column of `--format csv`: figures differ from time to time, what they are of does not."""
    return lambda typed: [row[name] for row in csv.DictReader(io.StringIO(out(typed)))]


def out_kind(typed: Typed) -> Any:
    """Whether standard output begins as CSV does."""
    return out(typed).startswith("model,")


PREPARED = "tests/corpus/test_prepare.py::test_every_setting_changes_the_corpus"
TRAINED = "tests/verbs/test_pretrain.py::test_every_training_setting_changes_the_model"
LOGGED = "tests/verbs/test_pretrain.py::test_settings_that_change_something_else"
STARTED = "tests/verbs/test_quickstart.py::"
SESSION = "tests/training/test_session.py::"
PREFLIGHT = "tests/training/test_preflight.py::"
LENGTHS = "tests/training/test_lengths.py::"
SET = "tests/training/test_set.py::"
TUNED = "tests/training/tuning/test_finetune.py::"
TUNED_BY = "tests/training/tuning/test_settings.py::"
DEVICE = Differs(["--device", "abacus"], refused)

# verb -> (the words of the plain command, setting -> its effect); {name} stands for a path.
TABLE: dict[str, tuple[list[str], dict[str, Differs | str]]] = {
    "quickstart": ([], {
        "sources": STARTED + "test_without_sources_it_reads_pythons_own",
        "output": STARTED + "test_the_folder_is_named_after_the_first_source",
        "minutes": STARTED + "test_settings_reach_what_they_are_of",
        "size": STARTED + "test_settings_reach_what_they_are_of",
        "seed": STARTED + "test_settings_reach_what_they_are_of",
        "device": STARTED + "test_settings_reach_what_they_are_of",
        "json": STARTED + "test_facts_report_and_next_commands",
    }),
    "doctor": ([], {"json": "tests/verbs/test_doctor.py::test_json_is_what_python_gets"}),
    "prepare": ([], {
        "sources": "tests/corpus/test_prepare.py::test_a_finished_corpus_is_recognised",
        "output": "tests/verbs/test_prepare.py::test_the_closing_command_trains_on_the_corpus",
        "vocab_size": f"{PREPARED}[vocab_size]",
        "tokenizer": "tests/corpus/test_prepare.py::test_a_tokenizer_can_be_taken_from_another_corpus",
        "tokenizer_type": f"{PREPARED}[tokenizer_type]",
        "column": f"{PREPARED}[column]",
        "documents": f"{PREPARED}[documents]",
        "validation": f"{PREPARED}[validation]",
        "group_by": f"{PREPARED}[group_by]",
        "near_duplicates": f"{PREPARED}[near_duplicates]",
        "exact_duplicates": f"{PREPARED}[exact_duplicates]",
        "filters": f"{PREPARED}[filters]",
        "fix_mojibake": "tests/corpus/test_normalise.py::test_mojibake_is_repaired_only_when_asked",
        "exclude": f"{PREPARED}[exclude]",
        "seed": f"{PREPARED}[seed]",
        # Another number of processes must not change the corpus; that is what is looked at.
        "workers": "tests/corpus/test_pipeline.py::test_one_and_two_workers_and_a_second_time_give_the_same_bytes",
        "overwrite": "tests/corpus/test_prepare.py::test_a_finished_corpus_is_recognised",
        "json": "tests/corpus/test_prepare.py::test_json_prints_the_manifest",
        "config": "tests/verbs/test_prepare.py::test_command_line_settings_file_and_python_make_the_same_corpus",
    }),
    "pretrain": (["{corpus}", "-o", "{work}/run", "{tiny}", "--max-steps", "2"], {
        "corpus": Differs(["{other_corpus}"], run_json("data", "hash")),
        "output": Differs(["-o", "{work}/another"], data_path),
        "size": f"{TRAINED}[size]",
        "minutes": LENGTHS + "test_minutes_become_steps_before_step_1_and_the_printed_command_repeats_the_run",
        "max_steps": f"{TRAINED}[max_steps]",
        "num_train_epochs": LENGTHS + "test_tokens_and_epochs_become_steps",
        "tokens": LENGTHS + "test_tokens_and_epochs_become_steps",
        "context": f"{TRAINED}[context]",
        "from_": "tests/verbs/test_pretrain.py::test_continuing_from_a_model",
        "resume": SESSION + "test_a_run_that_goes_on_from_a_model_is_resumed_from_that_model",
        "architecture": f"{TRAINED}[architecture]",
        "set": SET + "test_set_reaches_the_field_of_the_model",
        "learning_rate": f"{TRAINED}[learning_rate]",
        "muon_learning_rate": f"{TRAINED}[muon_learning_rate]",
        "weight_decay": f"{TRAINED}[weight_decay]",
        "max_grad_norm": f"{TRAINED}[max_grad_norm]",
        "warmup_steps": f"{TRAINED}[warmup_steps]",
        "per_device_train_batch_size": f"{TRAINED}[per_device_train_batch_size]",
        "gradient_accumulation_steps": f"{TRAINED}[gradient_accumulation_steps]",
        "seed": f"{TRAINED}[seed]",
        "dtype": Differs(["--dtype", "bfloat16"], weights),
        "device": DEVICE,
        "threads": SESSION + "test_threads_are_those_of_torch",
        "eval_steps": f"{LOGGED}[eval_steps]",
        "save_steps": f"{LOGGED}[save_steps]",
        "save_total_limit": SESSION + "test_save_total_limit_keeps_the_newest",
        "sample_prompt": f"{LOGGED}[sample_prompt]",
        "gradient_checkpointing": "tests/training/test_memory.py::test_checkpointing_keeps_less_and_changes_nothing",
        "compile": "tests/training/test_compiled.py::test_compiled_blocks_train_as_the_others_do",
        "report_to": "tests/training/test_trackers.py::test_the_event_file_says_what_the_log_says",
        "on_divergence": "tests/training/test_watchdog.py::test_a_skipped_step_is_an_update_left_out",
        "logging_steps": Differs(["--logging-steps", "1"], lines_with("MFU")),
        "allow_overlap": PREFLIGHT + "test_validation_text_in_the_training_text_is_refused_unless_allowed",
        "dry_run": PREFLIGHT + "test_a_dry_run_writes_nothing_and_its_command_trains_that",
        "overwrite": SESSION + "test_overwrite_removes_nothing_when_the_plan_is_refused",
        "json": Differs(["--json"], out),
        "config": "tests/verbs/test_pretrain.py::test_settings_file_and_precedence",
    }),
    "finetune": ([], {
        "model": TUNED + "test_a_run_is_not_replaced_unasked",
        "data": TUNED + "test_resume_refuses_other_rows_and_other_settings",
        "output": TUNED + "test_the_repeat_command_trains_the_same_bits",
        "task": TUNED + "test_opinions_are_learnt",
        "as_": TUNED + "test_opinions_as_text",
        "map": TUNED_BY + "test_task_map_and_columns",
        "lora": TUNED + "test_an_adapter_leaves_its_base_alone",
        **{name: f"{TUNED_BY}test_it_changes_the_adapter[{name}]" for name in (
            "lora_r", "lora_alpha", "lora_dropout", "rslora", "target_modules", "base_dtype")},
        **{name: f"{TUNED_BY}test_it_changes_the_model[{name}]" for name in (
            "chat_template", "max_length", "overlong", "train_on", "validation", "max_steps", "num_train_epochs",
            "learning_rate", "muon_learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "seed",
            "per_device_train_batch_size", "gradient_accumulation_steps")},
        **dict.fromkeys(("eval_rows", "eval_steps", "save_steps", "save_total_limit", "logging_steps"), TUNED_BY + "test_it_changes_the_log_and_the_folder"),
        "allow_overlap": TUNED_BY + "test_overlap_is_allowed_when_asked_and_recorded",
        "minutes": TUNED_BY + "test_minutes_become_steps",
        "gradient_checkpointing": TUNED_BY + "test_memory_is_saved_without_changing_the_model",
        "dtype": TUNED_BY + "test_threads_and_dtype_are_recorded",
        "device": TUNED_BY + "test_threads_and_dtype_are_recorded",
        "threads": TUNED_BY + "test_threads_and_dtype_are_recorded",
        "on_divergence": "tests/training/test_watchdog.py::test_a_skipped_step_is_an_update_left_out",
        "resume": TUNED + "test_a_stopped_run_goes_on_to_the_same_bits",
        "dry_run": TUNED + "test_a_dry_run_writes_nothing",
        "overwrite": TUNED + "test_a_run_is_not_replaced_unasked",
        "json": TUNED_BY + "test_a_settings_file_and_json",
        "config": TUNED_BY + "test_a_settings_file_and_json",
    }),
    "generate": (["{run}", "The quick", "--seed", "3", "--temperature", "1.5", "--max-new-tokens", "14"], {
        "model": Differs(["{other_run}", "The quick"], out),
        "prompts": Differs(["{run}", "A river"], out),
        "max_length": "tests/verbs/test_generate.py::test_max_length_counts_the_prompt_and_max_new_tokens_does_not",
        "max_new_tokens": Differs(["--max-new-tokens", "3"], out),
        "temperature": Differs(["--temperature", "0.2"], out),
        "top_k": Differs(["--top-k", "2"], out),
        "top_p": Differs(["--top-p", "0.3"], out),
        "min_p": Differs(["--min-p", "0.5"], out),
        "repetition_penalty": Differs(["--repetition-penalty", "5"], out),
        "presence_penalty": Differs(["--presence-penalty", "9"], out),
        "frequency_penalty": Differs(["--frequency-penalty", "9"], out),
        "min_new_tokens": "tests/verbs/test_generate.py::test_the_model_cannot_end_a_text_before_min_new_tokens",
        "schema": "tests/verbs/test_generate.py::test_json_by_a_schema",
        "choices": "tests/verbs/test_generate.py::test_one_of_several_texts",
        "regex": "tests/verbs/test_generate.py::test_a_text_of_a_regular_expression",
        "stop": "tests/verbs/test_generate.py::test_a_stop_string_is_neither_printed_nor_passed",
        "seed": Differs(["--seed", "4"], out),
        "num_return_sequences": Differs(["--num-return-sequences", "2"], out),
        "completion_only": Differs(["--completion-only"], out),
        "device": DEVICE,
        "dtype": "tests/verbs/test_generate.py::test_dtype_is_the_arithmetic",
        "json": Differs(["--json"], out),
    }),
    "answer": (["Where is the fox of the river?", "--context", "{file}", "--top-k", "2"], {
        "model": "tests/verbs/test_answer_model.py::test_a_head_reads_the_passages",
        "question": "tests/verbs/test_answer_model.py::test_a_head_reads_the_passages",
        "context": Differs(["--context", "{corpus}"], out),
        "top_k": Differs(["--top-k", "1"], out),
        "generate": "tests/verbs/test_answer_model.py::test_a_model_that_chats_writes_the_answer",
        "output": "tests/verbs/test_answer.py::test_answers_are_kept_in_a_file",
        "device": "tests/verbs/test_answer_model.py::test_device_and_dtype_reach_the_model",
        "dtype": "tests/verbs/test_answer_model.py::test_device_and_dtype_reach_the_model",
        "json": Differs(["--json"], out),
    }),
    "chat": (["{talker}", "Who?", "--seed", "3", "--temperature", "1.5", "--max-new-tokens", "14"], {
        "model": Differs(["{run}", "Who?"], refused),
        "message": Differs(["{talker}", "Who runs?"], out),
        "system": Differs(["--system", "Be short."], out),
        "max_new_tokens": Differs(["--max-new-tokens", "3"], out),
        "temperature": Differs(["--temperature", "0.2"], out),
        "top_k": Differs(["--top-k", "2"], out),
        "top_p": Differs(["--top-p", "0.3"], out),
        "min_p": Differs(["--min-p", "0.5"], out),
        "repetition_penalty": Differs(["--repetition-penalty", "5"], out),
        "schema": Differs(["--schema", '{{"type": "integer"}}'], out),
        "choices": Differs(["--choices", "yes,no"], out),
        "regex": Differs(["--regex", "[0-9]+"], out),
        "stop": "tests/verbs/test_chat.py::test_every_option_reaches_the_answer",
        "seed": Differs(["--seed", "4"], out),
        "chat_template": Differs(["--chat-template", "alpaca"], out),
        "device": DEVICE,
        "dtype": "tests/verbs/test_chat.py::test_dtype_is_the_arithmetic",
        "json": Differs(["--json"], out),
    }),
    "translate": ([], {
        "model": "tests/verbs/test_task_verbs.py::test_what_was_measured_is_said_and_what_was_not",
        "texts": "tests/verbs/test_task_verbs.py::test_line_n_of_the_result_belongs_to_line_n_of_the_input",
        "to": "tests/verbs/test_task_verbs.py::test_languages_are_checked_before_the_model_is_opened",
        "from_": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "max_new_tokens": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "truncate": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "output": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
        "device": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "dtype": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "json": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
    }),
    "classify": ([], {
        "model": "tests/verbs/test_task_verbs.py::test_what_was_measured_is_said_and_what_was_not",
        "texts": "tests/verbs/test_task_verbs.py::test_line_n_of_the_result_belongs_to_line_n_of_the_input",
        "labels": "tests/task_methods/test_labels.py::test_probabilities_are_those_of_the_labels_over_those_after_texts_that_say_nothing",
        "top_k": "tests/verbs/test_task_verbs.py::test_top_k_gives_more_labels_best_first",
        "output": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
        "device": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "dtype": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "json": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
    }),
    "summarize": ([], {
        "model": "tests/verbs/test_task_verbs.py::test_what_was_measured_is_said_and_what_was_not",
        "texts": "tests/verbs/test_task_verbs.py::test_line_n_of_the_result_belongs_to_line_n_of_the_input",
        "max_new_tokens": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "truncate": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "output": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
        "device": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "dtype": "tests/verbs/test_task_verbs.py::test_options_reach_the_model",
        "json": "tests/verbs/test_task_verbs.py::test_json_output_and_python_give_the_shapes_of_the_old_pipelines",
    }),
    "serve": (["{run}"], {
        "model": "tests/server/test_serve.py::test_a_server_of_a_run_answers_and_ends_at_sigterm",
        "host": "tests/server/test_serve.py::test_what_is_announced",
        "port": "tests/server/test_serve.py::test_a_port_that_is_taken",
        "name": "tests/server/test_models.py::test_names",
        "adapter": "tests/server/test_adapters.py::test_each_name_is_its_own_model",
        "chat_template": "tests/server/test_chat.py::test_a_model_without_a_template_is_refused_and_one_with_a_given_template_answers",
        "api_key": "tests/server/test_access.py::test_keys",
        "allow_host": "tests/server/test_access.py::test_hosts",
        "cors_origin": "tests/server/test_access.py::test_other_origins",
        "max_concurrent": "tests/server/test_limits.py::test_the_queue_is_full",
        "max_queue": "tests/server/test_limits.py::test_the_queue_is_full",
        "max_new_tokens": "tests/server/test_limits.py::test_an_answer_has_so_many_tokens_at_most",
        "max_body_bytes": "tests/server/test_limits.py::test_a_body_that_is_too_large",
        "timeout": "tests/server/test_limits.py::test_the_time_is_over",
        "max_context": "tests/server/test_serve.py::test_settings_reach_what_they_are_of",
        "log_content": "tests/server/test_access.py::test_what_was_said_is_not_noted_unless_asked_for",
        "runs": "tests/server/test_runs.py::test_the_option",
        "documents": "tests/server/test_documents.py::test_the_option",
        "metrics_prefix": "tests/server/test_serve.py::test_settings_reach_what_they_are_of",
        "device": "tests/server/test_serve.py::test_settings_reach_what_they_are_of",
        "dtype": "tests/server/test_serve.py::test_settings_reach_what_they_are_of",
    }),
    "evaluate": (["{run}", "{file}", "--json"], {
        "model": Differs(["{other_run}", "{file}"], figures),
        "texts": Differs(["{run}", "The fox runs home."], figures),
        "task": "tests/verbs/test_evaluate_task.py::test_rows_of_a_task_that_the_model_was_taught_need_no_task",
        "map": "tests/verbs/test_evaluate_task.py::test_map_names_columns",
        "output": "tests/verbs/test_evaluate_task.py::test_rows_written_to_a_file",
        "max_new_tokens": "tests/verbs/test_evaluate_task.py::test_max_new_tokens_and_truncate_reach_the_model",
        "truncate": "tests/verbs/test_evaluate_task.py::test_max_new_tokens_and_truncate_reach_the_model",
        "stride": Differs(["--stride", "1"], figures),
        "batch_size": "tests/verbs/test_evaluate.py::test_batch_size_changes_how_many_windows_are_computed_at_once",
        "seed": Differs(["--seed", "5"], figures),
        "dtype": Differs(["--dtype", "bfloat16"], figures),
        "device": DEVICE,
        "json": Differs(["--no-json"], out),
    }),
    "score": (["{run}", "{file}"], {
        "model": Differs(["{other_run}", "{file}"], out),
        "texts": Differs(["{run}", "The fox runs home."], out),
        "top": Differs(["--top", "3"], out),
        "rank": "tests/verbs/test_score.py::test_candidates_are_ordered_by_their_probability",
        "prompt": "tests/verbs/test_score.py::test_a_prompt_stands_before_the_candidates",
        "per_byte": "tests/verbs/test_score.py::test_candidates_are_ordered_by_their_probability",
        "stride": Differs(["--stride", "1"], out),
        "device": DEVICE,
        "json": Differs(["--json"], out),
    }),
    "bench": (["{run}", "--prompt-tokens", "8", "--new-tokens", "4", "--batch", "1", "--repetitions", "1", "--format", "csv"], {
        "model": Differs(["{other_run}"], columns("model")),
        "dtype": "tests/verbs/test_bench.py::test_dtype_is_that_of_the_engine",
        "prompt_tokens": Differs(["--prompt-tokens", "9"], columns("test")),
        "new_tokens": Differs(["--new-tokens", "5"], columns("test")),
        "batch": Differs(["--batch", "1,2"], columns("batch")),
        "depth": "tests/verbs/test_bench.py::test_at_a_depth_only_what_follows_it_is_computed",
        "repetitions": Differs(["--repetitions", "2"], columns("repetitions")),
        "threads": "tests/verbs/test_bench.py::test_threads_are_those_of_torch",
        "device": DEVICE,
        "format": Differs(["--format", "table"], out_kind),
        "json": "tests/verbs/test_bench.py::test_json_is_what_python_gets",
    }),
    "data": ([], {
        "action": "tests/verbs/test_data.py::test_show_marks_what_is_trained",
        "sources": "tests/verbs/test_data.py::test_check_prints_the_report_and_every_exception_with_its_place",
        "task": "tests/verbs/test_data.py::test_task_map_and_template_reach_the_data",
        "map": "tests/verbs/test_data.py::test_task_map_and_template_reach_the_data",
        "model": "tests/verbs/test_data.py::test_task_map_and_template_reach_the_data",
        "chat_template": "tests/verbs/test_data.py::test_task_map_and_template_reach_the_data",
        "rows": "tests/verbs/test_data.py::test_show_marks_what_is_trained",
        "output": "tests/verbs/test_data.py::test_example_is_written_where_it_is_asked_for_and_checked",
        "json": "tests/verbs/test_data.py::test_check_says_how_many_exceptions_it_does_not_print",
    }),
    "runs": ([], {
        "folder": "tests/verbs/test_runs.py::test_a_missing_folder_is_a_usage_error",
        "runs": "tests/verbs/test_runs_compare.py::test_settings_that_differ_and_only_they",
        "containing": "tests/verbs/test_runs_containing.py::test_how_much_of_a_training_document_was_seen_and_how_often",
        "output": "tests/verbs/test_runs_compare.py::test_settings_that_differ_and_only_they",
        "paired": "tests/verbs/test_runs_compare.py::test_no_paired_difference_is_said_with_its_reason",
        "json": "tests/verbs/test_runs.py::test_json_and_python_give_the_same_rows",
    }),
}  # fmt: skip
