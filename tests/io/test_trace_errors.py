import gzip
import json

import pytest
import zstandard

from stability.errors import TraceError
from stability.io.traces import read_trace

HEAD = "arrival_s,prompt_tokens,output_tokens\n"
MANY = (HEAD + "".join(f"{i},{100 + i % 7},{i % 13 + 1}\n" for i in range(20_000))).encode()
ENTRY = {"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}


def complaint(file, **options):
    with pytest.raises(TraceError) as caught:
        read_trace(file, **options)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    return text.removeprefix(str(file))


def of(folder, content, **options):
    file = folder / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return complaint(file, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,-5,1\n", ":2: prompt_tokens = -5, must be between 0 and 2147483648 tokens. Correct or drop the row."),
        (
            "0,1,1\n1,1,nan\n",
            ":3: output_tokens = nan, must be between 0 and 2147483648 tokens. Correct or drop the row.",
        ),
        (
            "0,1e12,1\n",
            ":2: prompt_tokens = 1000000000000, must be between 0 and 2147483648 tokens. Correct or drop the row.",
        ),
        ("0,1.5,1\n", ":2: prompt_tokens = 1.5, must be a whole number of tokens. Correct or drop the row."),
        ("0,many,1\n", ":2: prompt_tokens = 'many', must be a number. Correct or drop the row."),
        ("0,1,1\n1,,1\n", ":3: prompt_tokens = '', must be a number. Correct or drop the row."),
        ("nan,1,1\n", ":2: arrival_s = nan, must be a finite time. Correct or drop the row."),
        ("inf,1,1\n", ":2: arrival_s = inf, must be a finite time. Correct or drop the row."),
        ("-1,1,1\n", ":2: arrival_s = -1, must be >= 0. Correct or drop the row."),
        (
            "0,1,1\n\n5,1,1\n2,1,1\n",
            ":5: arrival at 2 s after one at 5 s, must not decrease. Sort the file, or its rows on reading (--sort, sort=True).",
        ),
        (
            "0,1,1\n1,2\n",
            ":3: 2 fields, must be 3 as in the header. Correct the row; commas inside fields are not supported.",
        ),
        (
            "0,1,1\n\n1,2,3,4\n5,6\n",
            ":4: 4 fields, must be 3 as in the header. Correct the row; commas inside fields are not supported.",
        ),
        (
            "0,1,1\n1," + "9" * 100 + ",1\n",
            ":3: prompt_tokens = '" + "9" * 64 + "', must be a number. Correct or drop the row.",
        ),
        ("0,1,\0\n", ":2: a NUL byte, the file must be text. Give a CSV or JSON-lines trace."),
        ("", " holds no requests, must hold at least one after its header. Check the file."),
        ("0,0,1\n1,5,0\n", " holds 2 rows without prompt or output tokens, must hold one with both. Check the file."),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    assert of(tmp_path, HEAD + rows) == message


def test_lines_are_counted_across_blocks(tmp_path):
    assert of(tmp_path, MANY * 9 + b"0,x,1\n").startswith(":20002: arrival_s = 'arrival_s', must be a number.")
    assert of(tmp_path, MANY * 1 + b"\n20001,x,1\n").startswith(":20003: prompt_tokens = 'x', must be a number.")
    long = MANY + b"".join(b"%d,1,1\n" % i for i in range(20_000, 300_000)) + b"5,1,1\n"
    assert len(long) > 3 << 20
    assert of(tmp_path, long).startswith(":300002: arrival at 5 s after one at 299999 s, must not decrease.")
    assert of(tmp_path, long[:-6] + b"300000,\xff,1\n").startswith(":300002: byte 0xff is not UTF-8")


def test_prefix_hits_within_the_prompt(tmp_path):
    head = "arrival_s,prompt_tokens,output_tokens,prefix_hit_tokens\n"
    assert of(tmp_path, head + "0,5,1,6\n") == ":2: prefix hits = 6, must be <= prompt_tokens. Correct or drop the row."


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \n"])
def test_empty_files(tmp_path, content):
    assert of(tmp_path, content) == " is empty, must hold a header and requests. Check the file."


def test_unknown_headers_list_what_is_known(tmp_path):
    text = of(tmp_path, "when,in,out\n1,2,3\n")
    assert text.startswith(":1: the first line 'when,in,out' is no known header. Recognised: arrival_s,prompt_tokens,")
    for word in ("TIMESTAMP,ContextTokens", "Request tokens", "input_length"):
        assert word in text
    assert "ContextTokens" not in of(tmp_path, HEAD + "0,1,1\n", format="burstgpt")


def test_repeated_columns(tmp_path):
    text = of(tmp_path, "arrival_s,prompt_tokens,output_tokens,prompt_tokens\n0,1,1,1\n")
    assert text == ":1: the column 'prompt_tokens' stands twice, must stand once. Rename one."


def test_files_that_cannot_be_read(tmp_path):
    assert complaint(tmp_path / "none.csv") == " does not exist, must be a trace file. Check the path."
    assert complaint(tmp_path) == " is a folder, must be a trace file. Name the file in it."


def test_text_that_is_not_utf8(tmp_path):
    assert of(tmp_path, HEAD.encode() + b"0,1,1\n0,1,\xe9\n") == (
        ":3: byte 0xe9 is not UTF-8, the file must be. Convert it, e.g. with iconv."
    )
    assert "is not UTF-8" in of(tmp_path, HEAD.encode("utf-16"))


@pytest.mark.parametrize(
    ("packed", "kind"), [(gzip.compress(MANY), "gzip"), (zstandard.compress(MANY), "zstd")], ids=["gzip", "zstd"]
)
def test_damaged_archives(tmp_path, packed, kind):
    cut = of(tmp_path, packed[: len(packed) // 2])
    assert cut == f" ends inside its {kind} stream, must be whole. Fetch or compress it again."
    middle = len(packed) // 2
    assert of(tmp_path, packed[:middle] + bytes(64) + packed[middle + 64 :])
    assert f"damaged {kind} file" in of(tmp_path, packed + b"rubbish")


@pytest.mark.parametrize(
    "stamp",
    ["", "yesterday", "2023-13-01 00:00:00", "2023-11-16 00:00:00+01:00", "2023-11-16 00:00:00-05:00", "1700000000.5x"],
)
def test_bad_azure_times(tmp_path, stamp):
    content = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:00,1,1\n{stamp},1,1\n"
    rule = "must be a UTC time such as 2023-11-16 18:15:46.68059. Correct or drop the row."
    assert of(tmp_path, content) == f":3: TIMESTAMP = {stamp!r}, {rule}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: no JSON object, must be one a line. Correct or drop the line."),
        ("[1]", ":2: a JSON list, must be an object. Correct or drop the line."),
        ('{"timestamp": 1}', ":2: input_length is missing, every request must have one. Correct or drop the line."),
        (
            json.dumps(ENTRY | {"input_length": "5"}),
            ":2: input_length = '5', must be a number. Correct or drop the line.",
        ),
        (
            json.dumps(ENTRY | {"hash_ids": 7}),
            ":2: hash_ids must be a list of integers or texts. Correct or drop the line.",
        ),
        (
            json.dumps(ENTRY | {"output_length": -7}),
            ":2: output_length = -7, must be between 0 and 2147483648 tokens. Correct or drop the row.",
        ),
        (json.dumps(ENTRY | {"timestamp": float("nan")}), ":2: timestamp = nan, must be a finite time."),
        (json.dumps(ENTRY | {"timestamp": 10**400}), ":2: timestamp = 1000"),
    ],
)
def test_bad_mooncake_lines(tmp_path, line, message):
    assert of(tmp_path, json.dumps(ENTRY) + "\n" + line + "\n").startswith(message)
