"""The catalog: names, records, laws, workloads, memory and the roofline fallback."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stability as st
from stability.errors import InputError, NotModelledError, UnknownNameError
from stability.model import catalog
from stability.model.catalog.replicas import ROOFLINE_ERROR_PERCENT

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

FINDERS = {"gpu": (catalog.gpu, catalog.gpus), "model": (catalog.model, catalog.models)}


def test_importing_reads_no_data_file():
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import stability.model.catalog as c\n"
        "assert not [f for f in opened if '/catalog/data/' in f], opened\n"
        "c.gpus(); assert [f for f in opened if '/catalog/data/' in f]\n"
        "heavy = {'scipy.stats', 'scipy.optimize', 'pandas', 'numba', 'matplotlib'} & set(sys.modules); assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("kind", FINDERS)
def test_every_name_and_alias_resolves_in_any_case(kind):
    find, records = FINDERS[kind]
    spellings = [(text, record) for record in records() for text in (record.name, *record.aliases)]
    folded = [text.casefold() for text, _ in spellings]
    assert len(set(folded)) == len(folded), "a spelling names two records"
    for text, record in spellings:
        for variant in (text, text.upper(), text.lower(), f"some-org/{text}"):
            assert find(variant) is record


def test_spellings_of_the_measurements():
    spellings = {
        "a100_sxm": "A100-80GB-SXM",
        "h100_sxm": "H100-SXM",
        "h100-80gb": "H100-SXM",
        "a100-80gb": "A100-80GB-SXM",
        "RTXPRO6000": "RTX-PRO-6000-Server",
        "b200_sxm": "B200-SXM",
    }
    assert {text: catalog.gpu(text).name for text in spellings} == spellings
    assert catalog.model("meta-llama/llama-3.3-70b-instruct").name == "Llama-3.1-70B"


def test_unknown_names_get_the_nearest_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown GPU 'H100-SMX'\. Did you mean H100-SXM"):
        catalog.gpu("H100-SMX")
    with pytest.raises(UnknownNameError, match=r"unknown model 'Llama-3\.1-8'\. Did you mean Llama-3\.1-8B"):
        catalog.model("Llama-3.1-8")
    with pytest.raises(UnknownNameError, match=r"azure-conv-2023"):
        catalog.lengths("azure-conv")
    with pytest.raises(UnknownNameError):
        catalog.find_law("H100", "no such model at all")
    with pytest.raises(InputError, match="must be a name or a Gpu"):
        catalog.gpu(3)
    with pytest.raises(InputError, match=r"backend = 'vlm'.*Did you mean 'vllm'"):
        catalog.find_law("H100", "Llama-3.1-8B", backend="vlm")


def test_every_row_has_a_source():
    for record in (*catalog.gpus(), *catalog.models(), *catalog.laws(), *catalog.workloads()):
        assert len(record.source) > 10


def test_numbers_of_well_known_hardware_and_models():
    h100, llama = catalog.gpu("H100"), catalog.model("Llama-3.1-8B")
    assert h100.memory_bytes == 80 * 2**30
    assert h100.bandwidth_bytes_per_s == 3.35e12
    assert llama.parameters == 8_030_261_248
    assert llama.weight_bytes() == 2 * 8_030_261_248
    assert catalog.gpu("L40S").memory_bytes == 45 * 2**30
    # Routed experts of Qwen3-30B-A3B: 48 layers, 128 experts of three 2048 x 768 matrices.
    assert catalog.model("Qwen3-30B-A3B").expert_parameters == pytest.approx(48 * 128 * 3 * 2048 * 768, rel=1e-3)


def test_rates_fall_back_to_the_next_wider_type():
    a100, b200 = catalog.gpu("A100"), catalog.gpu("B200")
    assert a100.flops_per_s("fp4") == a100.flops_per_s("bf16") == 312e12
    assert (b200.flops_per_s("fp4"), b200.flops_per_s("fp8")) == (9e15, 4.5e15)


def test_kv_bytes_follow_dtype_head_replication_and_latent():
    llama, deepseek = catalog.model("Llama-3.1-70B"), catalog.model("DeepSeek-V3")
    assert llama.kv_bytes_per_token() == 327_680
    assert llama.kv_bytes_per_token("fp8") == 163_840
    assert llama.kv_bytes_per_token(tensor_parallel=8) == 40_960
    assert llama.kv_bytes_per_token(tensor_parallel=16) == 40_960  # eight heads on sixteen GPUs: each twice
    assert deepseek.kv_bytes_per_token() == deepseek.kv_bytes_per_token(tensor_parallel=8) == 70_272
    with pytest.raises(InputError, match="kv_dtype"):
        llama.kv_bytes_per_token("fp4")


def test_h100_llama_8b_is_the_published_two_phase_fit_plus_host_time():
    record = catalog.find_law("h100_sxm", "llama-3.1-8b")
    assert isinstance(record.law, st.iteration.TwoPhase)
    assert record.basis == "kernels"
    assert record.law.decode.base_s == pytest.approx((6.3784 + 2.7) * 1e-3, abs=1e-12)
    assert record.law.decode.per_decode_token_s == pytest.approx(9.1869e-6)
    assert record.law.decode.per_kv_token_s == pytest.approx(0.04256e-6)
    assert record.law.mixed.coefficients == pytest.approx((7.6692e-3, 15.0277e-6, 15.0277e-6, 0.04301e-6, 0.0030318e-6))
    assert (record.decode_fit.mape, record.fit.mape) == pytest.approx((0.0098, 0.038))


def test_host_time_goes_to_kernel_fits_only():
    for record in catalog.laws():
        assert record.host_overhead_s == (2.7e-3 if record.basis == "kernels" else 0.0)
    server = catalog.find_law("B200", "Llama-3.1-70B", tensor_parallel=4, dtype="fp8")
    assert server.backend == "vllm"
    assert server.law.coefficients == pytest.approx((7.8064e-3, 31.4056e-6, 31.4056e-6, 0.00332e-6, 0))
    trtllm = catalog.find_law("B200", "Llama-3.1-70B", tensor_parallel=4, dtype="fp8", backend="trtllm")
    assert trtllm.law.base_s == pytest.approx(6.459e-3)


def test_every_law_is_finite_and_positive_and_names_known_hardware():
    compositions = np.array([[0, 1, 1, 0], [0, 256, 256 * 2048, 0], [2048, 64, 64_000, 2048**2 / 2]], dtype=float)
    for record in catalog.laws():
        times = record.law.time_s(*compositions.T)
        assert np.isfinite(times).all(), record
        assert (times > 1e-3).all(), record
        assert times[1] >= times[0], record
        assert catalog.gpu(record.gpu).name == record.gpu
        assert catalog.model(record.model).name == record.model
        for quality in (record.fit, record.decode_fit):
            assert quality is None or (0 < quality.mape < 0.2 and quality.r2 > 0.6)
        assert record.has_kv_term == bool(record.law.time_s(0, 8, 80_000) > record.law.time_s(0, 8, 8))
        assert record.has_kv_term or "KV term" in record.note


def test_black_box_laws_only_where_nothing_else_is():
    keys = {}
    for record in catalog.laws():
        keys.setdefault((record.gpu, record.model, record.tensor_parallel, record.dtype), []).append(record.basis)
    assert all(len(bases) == 1 for bases in keys.values() if "black_box" in bases)
    assert "without a KV term" in catalog.find_law("H100", "Qwen2.5-7B").describe()


def test_kernels_are_preferred_to_whole_server_timings():
    llama2 = [r for r in catalog.laws() if (r.gpu, r.model, r.tensor_parallel) == ("A100-80GB-SXM", "Llama-2-70B", 2)]
    assert [r.basis for r in llama2] == ["kernels", "end_to_end"]
    assert catalog.find_law("A100", "Llama-2-70B", tensor_parallel=2) is llama2[0]


@pytest.mark.parametrize("record", catalog.workloads(), ids=lambda record: record.name)
def test_workload_grids_keep_the_moments(record):
    errors = dataclasses.asdict(record.relative_errors())
    loose = {
        ("m-large", "prompt_square_mean"): 0.03
    }  # its published 99.9 % and 99.99 % quantiles exceed its published cv
    for moment, error in errors.items():
        assert error is None or abs(error) < loose.get((record.name, moment), 0.01), moment
    assert (errors["product_mean"] is None) == (not record.joint)
    assert record.moments().prompt_mean == pytest.approx(record.lengths.prompt_mean_tokens)
    assert record.summary().count("\n") >= 7


def test_joint_workloads_have_the_traces_extremes_and_correlation():
    conversation = catalog.workload("Azure-Conv-2023")
    assert (conversation.prompt_max_tokens, conversation.output_max_tokens) == (14_050, 1_000)
    assert conversation.lengths.max_prompt_tokens == 14_050
    assert conversation.total_max_tokens == 14_089
    assert conversation.spearman == pytest.approx(0.073, abs=1e-3)
    assert conversation.mean_rate_per_s == pytest.approx(5.53, abs=0.01)
    assert catalog.workload("m-large").spearman is None


def test_replica_says_where_its_numbers_come_from():
    replica = catalog.replica("h100_sxm", "Llama-3.1-8B", activation_reserve_bytes=0, price_per_hour=2.5)
    assert replica.kv_capacity_tokens == 467_280
    assert (replica.gpu, replica.model, replica.gpus, replica.price_per_hour) == ("H100-SXM", "Llama-3.1-8B", 1, 2.5)
    assert replica.kv_bytes_per_token == 131_072
    assert replica.iteration is catalog.find_law("H100", "Llama-3.1-8B").law
    law_note, memory_note = replica.notes
    assert "kernel times + 2.7 ms host time, mean error 3.8 %" in law_note
    assert "0.9 of 80 GiB" in memory_note


def test_replica_inputs_can_be_given():
    law = st.IterationTime(base_s=0.01)
    given = catalog.replica("A100-40GB-SXM", "Llama-3-8B", kv_capacity_tokens=131_000, iteration=law)
    assert given.kv_capacity_tokens == 131_000
    assert given.iteration is law
    assert given.notes == ("step-time law given", "KV capacity 131000 tokens, given")
    small = catalog.replica("H100", "Llama-3.1-8B", activation_reserve_bytes=0, kv_dtype="fp8")
    assert small.kv_capacity_tokens == pytest.approx(2 * 467_280, abs=16)
    assert small.kv_bytes_per_token == 65_536
    wide = catalog.replica("H100", "Llama-3.1-70B", tensor_parallel=16)
    assert (wide.gpus, wide.kv_bytes_per_token) == (16, 2 * 327_680)


def test_larger_budgets_leave_less_memory():
    def capacity(**settings):
        return catalog.replica("H100", "Llama-3.1-8B", engine=st.Engine(**settings)).kv_capacity_tokens

    assert capacity(max_num_batched_tokens=8192) < capacity()
    assert capacity(max_num_seqs=1024) < capacity()
    assert capacity(block_size=64) % 64 == 0


def test_pipeline_stages_split_weights_and_need_a_law():
    law = st.IterationTime(base_s=0.01)
    # 80 layers over 3 stages: the fullest has 27; an embedding of 128256 x 8192 stays whole.
    replica = catalog.replica("H100", "Llama-3.1-70B", pipeline_parallel=3, iteration=law, activation_reserve_bytes=0)
    embedding = 128_256 * 8192
    weights = 2 * ((70_553_706_496 - 2 * embedding) * 27 / 80 + embedding)
    assert replica.gpus == 3
    assert replica.kv_capacity_tokens == (0.9 * 80 * 2**30 - weights) // (327_680 * 27 / 80 * 16) * 16
    with pytest.raises(NotModelledError, match="iteration="):
        catalog.replica("H100", "Llama-3.1-70B", pipeline_parallel=4)
    with pytest.raises(InputError, match="80 layers"):
        catalog.kv_capacity(catalog.gpu("H100"), catalog.model("Llama-3.1-70B"), pipeline_parallel=81)


def test_a_model_that_does_not_fit_is_one_sentence_with_a_way_out():
    with pytest.raises(InputError) as caught:
        catalog.replica("H100", "Llama-3.1-70B")
    message = str(caught.value)
    for part in ("weights of 141.1 GB", "0.9 of 85.9 GB", "tensor_parallel=2", "dtype='fp8'", "more memory"):
        assert part in message
    with pytest.raises(InputError, match=r"must divide the 28 query heads of Qwen2.5-7B"):
        catalog.replica("H100", "Qwen2.5-7B", tensor_parallel=8)


def test_own_hardware_and_models_can_be_planned():
    card = catalog.Gpu(name="mine", memory_bytes=80 * 2**30, bandwidth_bytes_per_s=3.35e12, bf16_flops_per_s=989e12)
    replica = catalog.replica(card, "Llama-3.1-8B")
    assert replica.gpu == "mine"
    assert "roofline" in replica.notes[0]
    assert replica.iteration == catalog.roofline("H100", "Llama-3.1-8B")
    with pytest.raises(InputError, match="memory_bytes = 0"):
        catalog.Gpu(name="mine", memory_bytes=0, bandwidth_bytes_per_s=1, bf16_flops_per_s=1)
    with pytest.raises(InputError, match="experts_per_token = 4, must be <= experts = 2"):
        dataclasses.replace(catalog.model("Llama-3.1-8B"), experts=2, experts_per_token=4)


def test_roofline_by_hand():
    e = catalog.Efficiency()
    law = catalog.roofline("H100", "Llama-3.1-8B")
    embedding = 128_256 * 4096
    assert law.weights_s == pytest.approx(2 * (8_030_261_248 - embedding) / (3.35e12 * e.weights))
    assert law.per_token_compute_s == pytest.approx(2 * (8_030_261_248 - 2 * embedding) / (989e12 * e.compute))
    assert law.per_kv_token_s == pytest.approx(131_072 / (3.35e12 * e.kv))
    assert law.per_prefill_context_s == pytest.approx(4 * 32 * 4096 / (989e12 * e.attention))
    assert law.overhead_s == pytest.approx(2.7e-3 + 32 * e.layer_s)
    assert law.per_token_s == 0
    wide = catalog.roofline("H100", "Llama-3.1-8B", tensor_parallel=2)
    assert wide.per_token_s == pytest.approx(64 * 2 * 0.5 * 2 * 4096 / (450e9 * e.link))
    assert wide.overhead_s == pytest.approx(law.overhead_s + 64 * e.all_reduce_s)
    mixture = catalog.roofline("H100", "Qwen3-30B-A3B", tensor_parallel=2)
    assert mixture.expert_share == 8 / 128
    assert mixture.experts_s > 10 * mixture.weights_s


def test_stated_roofline_errors_are_the_computed_ones():
    errors = catalog.roofline_errors()
    assert len(errors) >= 70
    for kind, mixture in (("dense", False), ("mixture", True)):
        medians = [100 * e.median_error for e in errors if (catalog.model(e.record.model).experts > 0) == mixture]
        assert round(float(np.median(medians))) == ROOFLINE_ERROR_PERCENT[kind]
    assert all(e.median_error <= e.max_error and e.compositions > 20 for e in errors)
    perfect = [e for e in errors if e.max_error == 0]
    assert not perfect


@pytest.mark.skipif(not DATA.exists(), reason="needs the measurements in ../shared/data")
def test_data_files_are_reproduced_from_the_measurements():
    built = subprocess.run(
        [sys.executable, "-m", "tools.build_catalog", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
